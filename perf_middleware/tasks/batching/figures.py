"""What batched functions have counted, and the families of all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.families import Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

US_PER_S: Final = 1_000_000

COUNTED: Final = (
    ("asks", "Single look-ups."),
    ("remembered", "Look-ups answered by what the same request has asked before."),
    ("keys", "Keys given to bulk calls: each once a call."),
    ("calls", "Bulk calls."),
    ("failed_calls", "Bulk calls that failed as a whole."),
    ("failed_keys", "Keys that failed alone, what is missing among them."),
    ("timeouts", "Bulk calls that had no answer in time."),
    ("refused", "Look-ups for which too many waited already."),
    ("left", "Look-ups whose asker was cancelled."),
)


class BatchCounts:
    """Plain counters of one batched function, of all its event loops."""

    __slots__ = (*(name for name, _ in COUNTED), "call_us")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.asks = self.remembered = self.keys = self.calls = self.call_us = 0
        self.failed_calls = self.failed_keys = self.timeouts = self.refused = self.left = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReading:
    """One batched function at one moment; `waiting` counts askers, `in_flight` bulk calls."""

    name: str
    waiting: int
    in_flight: int
    counts: BatchCounts


def batching_families(readings: Sequence[BatchReading]) -> Iterable[Family]:
    """The families for a scrape, with the points of every function; names should differ."""
    labels = {each.name: LabelSet([("batch", each.name)]) for each in readings}
    yield gauge(
        "perf_batching_waiting",
        "Look-ups that wait for a bulk call.",
        [Value(labels[each.name], each.waiting) for each in readings],
    )
    yield gauge(
        "perf_batching_in_flight",
        "Bulk calls in progress.",
        [Value(labels[each.name], each.in_flight) for each in readings],
    )
    for name, help_text in COUNTED:
        yield counter(
            f"perf_batching_{name}",
            help_text,
            [Value(labels[each.name], getattr(each.counts, name)) for each in readings],
        )
    yield counter(
        "perf_batching_call_seconds",
        "Time that bulk calls took, all together.",
        [Value(labels[each.name], each.counts.call_us / US_PER_S) for each in readings],
        unit="seconds",
    )

"""What admission did, counted by criticality and reason, and offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge
from perf_middleware.limits.concurrency.criticality import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

REASONS: Final = ("full", "expired", "level", "deadline", "left")
"""Why a request was not served: the line was full, it waited too long, its class is not served at
this level of overload, its deadline would pass, its client left."""


class BackpressureFigures:
    """Plain counters; the lists are by the code of the criticality."""

    __slots__ = (
        "admitted", "event_streams", "failures", "shed", "wait_us", "waited", "websockets_refused",
        "would_shed", "would_wait",
    )  # fmt: skip

    def __init__(self) -> None:
        self.admitted = [0] * len(NAMES)
        self.shed = {reason: [0] * len(NAMES) for reason in REASONS}
        self.would_shed = {reason: [0] * len(NAMES) for reason in REASONS}
        self.reset()

    def reset(self) -> None:
        """Every count back to zero, in place."""
        for counts in (self.admitted, *self.shed.values(), *self.would_shed.values()):
            counts[:] = [0] * len(NAMES)
        self.waited = 0  # admitted after they had waited
        self.wait_us = 0
        self.would_wait = 0
        self.event_streams = 0
        self.websockets_refused = 0
        self.failures = 0  # of the user's own callables

    def totals(self) -> dict[str, Any]:
        """The sums, JSON-able."""
        return {
            "admitted": sum(self.admitted),
            "waited": self.waited,
            "shed": {reason: sum(counts) for reason, counts in self.shed.items() if any(counts)},
            "would_shed": {
                reason: sum(counts) for reason, counts in self.would_shed.items() if any(counts)
            },
        }

    def families(
        self, *, limit: int, in_flight: int, waiting: int, websockets: int
    ) -> Iterator[Family]:
        """Everything that /metrics tells of admission."""

        def one(make: Any, name: str, text: str, value: float, unit: str = "") -> Family:
            family: Family = make(name, text, (Value(NO_LABELS, value),), unit=unit)
            return family

        yield one(gauge, "perf_backpressure_limit", "Requests that may be in flight.", limit)
        yield one(gauge, "perf_backpressure_in_flight", "Requests that hold a permit.", in_flight)
        yield one(gauge, "perf_backpressure_waiting", "Requests that wait for one.", waiting)
        yield one(gauge, "perf_backpressure_websockets", "Websockets that are open.", websockets)
        yield counter(
            "perf_backpressure_admitted",
            "Requests that the app was given.",
            tuple(
                Value(LabelSet([("criticality", name)]), count)
                for name, count in zip(NAMES, self.admitted, strict=True)
            ),
        )
        yield _by_reason("perf_backpressure_shed", "Requests that were not served.", self.shed)
        yield _by_reason(
            "perf_backpressure_would_shed", "Requests shed but for the dry run.", self.would_shed
        )
        yield one(
            counter, "perf_backpressure_would_wait",
            "Requests that would have waited but for the dry run.", self.would_wait,
        )  # fmt: skip
        yield one(
            counter, "perf_backpressure_waits", "Requests that were admitted after a wait.",
            self.waited,
        )  # fmt: skip
        yield one(
            counter, "perf_backpressure_wait_seconds", "Time that those have waited.",
            self.wait_us / 1e6, "seconds",
        )  # fmt: skip
        yield one(
            counter, "perf_backpressure_event_streams",
            "Event streams, which hold no permit once they have begun.", self.event_streams,
        )  # fmt: skip
        yield one(
            counter, "perf_backpressure_websockets_refused",
            "Websockets refused because too many were open.", self.websockets_refused,
        )  # fmt: skip
        yield one(
            counter, "perf_backpressure_hook_failures",
            "Calls of hooks that raised: a level, a deadline, who is trusted, which class.",
            self.failures,
        )  # fmt: skip


def _by_reason(name: str, text: str, counts: dict[str, list[int]]) -> Family:
    return counter(
        name,
        text,
        tuple(
            Value(LabelSet([("criticality", NAMES[code]), ("reason", reason)]), count)
            for reason, by_code in counts.items()
            for code, count in enumerate(by_code)
        ),
    )

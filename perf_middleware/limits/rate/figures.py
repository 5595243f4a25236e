"""What the quotas did, counted plainly and offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OUTCOMES: Final = ("admitted", "refused", "would_refuse", "exempt")


class QuotaCounts:
    """The requests (or messages) of one quota, by what became of them."""

    __slots__ = OUTCOMES

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.admitted = 0
        self.refused = 0
        self.would_refuse = 0
        self.exempt = 0

    def totals(self) -> dict[str, int]:
        return {outcome: getattr(self, outcome) for outcome in OUTCOMES}


def families(
    counts: Iterable[tuple[str, QuotaCounts]],
    *,
    failures: int,
) -> Iterator[Family]:
    """Everything that /metrics tells of them; `counts` by the quota's name."""
    yield counter(
        "perf_ratelimit_requests",
        "Requests (and websocket messages) that a quota was asked about, by what became of them.",
        tuple(
            Value(LabelSet([("quota", name), ("outcome", outcome)]), getattr(count, outcome))
            for name, count in counts
            for outcome in OUTCOMES
            if getattr(count, outcome)
        ),
    )
    yield counter(
        "perf_ratelimit_function_failures",
        "Calls of the app's own functions for keys, costs and exemptions that raised.",
        (Value(NO_LABELS, failures),),
    )

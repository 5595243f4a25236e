"""What deadlines and request limits did, counted plainly and offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.limits.deadlines.choices import Covers

Reason: TypeAlias = Literal["body", "header", "url", "slow"]

PHASES: Final[tuple[Covers, ...]] = ("head", "total")
REASONS: Final[tuple[Reason, ...]] = ("body", "header", "url", "slow")
_PHASE_LABELS: Final = [(phase, LabelSet((("phase", phase),))) for phase in PHASES]
_REASON_LABELS: Final = [(reason, LabelSet((("reason", reason),))) for reason in REASONS]


class DeadlineFigures:
    """The counters of one `Deadlines`."""

    __slots__ = ("dry_timeouts", "incoming", "refused", "running_on", "timeouts")

    def __init__(self) -> None:
        self.timeouts = dict.fromkeys(PHASES, 0)
        self.dry_timeouts = dict.fromkeys(PHASES, 0)
        self.refused = dict.fromkeys(REASONS, 0)
        self.incoming = 0
        self.running_on = 0  # now

    def reset(self) -> None:
        """Every count back to zero."""
        for counts in (self.timeouts, self.dry_timeouts, self.refused):
            for key in counts:
                counts[key] = 0  # type: ignore[index]
        self.incoming = 0

    def totals(self) -> dict[str, Any]:
        """All of them, as JSON."""
        return {
            "timeouts": dict(self.timeouts),
            "dry_run_timeouts": dict(self.dry_timeouts),
            "running_on": self.running_on,
            "incoming": self.incoming,
            "refused": dict(self.refused),
        }

    def timeout_families(self) -> Iterator[Family]:
        """What /metrics tells of timeouts."""
        yield counter(
            "perf_deadline_timeouts",
            "Requests that reached their deadline, before the response's head or in its body.",
            [Value(labels, self.timeouts[phase]) for phase, labels in _PHASE_LABELS],
        )
        yield counter(
            "perf_deadline_dry_run_timeouts",
            "Requests that would have, had it not been for dry_run.",
            [Value(labels, self.dry_timeouts[phase]) for phase, labels in _PHASE_LABELS],
        )
        yield counter(
            "perf_deadline_incoming",
            "Requests whose caller told a deadline that was obeyed.",
            [Value(NO_LABELS, self.incoming)],
        )
        yield gauge(
            "perf_deadline_running_on",
            "Requests behind their deadline whose thread or cleanup has not come to its end.",
            [Value(NO_LABELS, self.running_on)],
        )

    def refusal_families(self) -> Iterator[Family]:
        """What /metrics tells of request limits."""
        yield counter(
            "perf_request_refused",
            "Requests that were refused for their body, headers, URL or slowness.",
            [Value(labels, self.refused[reason]) for reason, labels in _REASON_LABELS],
        )

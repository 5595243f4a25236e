"""What shedding and finishing have counted, offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge
from perf_middleware.memory_watch.finishing import REASONS
from perf_middleware.memory_watch.shedding import CLASS_NAMES, NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.memory_watch.finishing import Reason

HOOKS: Final = ("criticality", "sampler")

_CLASS_LABELS: Final = tuple(LabelSet([("criticality", name)]) for name in CLASS_NAMES)
_HOOK_LABELS: Final = tuple(LabelSet([("hook", name)]) for name in HOOKS)
_REASON_LABELS: Final = {reason: LabelSet([("reason", reason)]) for reason in REASONS}


class SheddingFigures:
    """Plain counters of the layer; `shed` is by the code of the class."""

    __slots__ = ("failures", "shed", "websockets_refused")

    def __init__(self) -> None:
        self.shed = [0] * len(CLASS_NAMES)
        self.reset()

    def reset(self) -> None:
        """Every count back to zero, in place."""
        self.shed[:] = [0] * len(CLASS_NAMES)
        self.websockets_refused = 0
        self.failures = dict.fromkeys(HOOKS, 0)

    @property
    def refused(self) -> int:
        """Requests and websockets, all together."""
        return sum(self.shed) + self.websockets_refused

    def totals(self) -> dict[str, Any]:
        """The sums, JSON-able."""
        return {
            "shed": dict(zip(CLASS_NAMES, self.shed, strict=True)),
            "websockets_refused": self.websockets_refused,
        }

    def families(self, *, refused_from: int) -> Iterator[Family]:
        """The families of shedding."""
        yield gauge(
            "perf_memory_shed_classes",
            "Classes of requests that are refused for want of memory: 0 none, 4 all.",
            [Value(NO_LABELS, NOBODY - refused_from)],
            across="max",
        )
        yield counter(
            "perf_memory_shed",
            "Requests that were refused for want of memory.",
            [Value(labels, count) for labels, count in zip(_CLASS_LABELS, self.shed, strict=True)],
        )
        yield counter(
            "perf_memory_websockets_refused",
            "Websockets that were refused for want of memory.",
            [Value(NO_LABELS, self.websockets_refused)],
        )
        yield counter(
            "perf_memory_hook_failures",
            "Calls of hooks that raised: which class, and what a single request leaves.",
            [
                Value(labels, self.failures[hook])
                for hook, labels in zip(HOOKS, _HOOK_LABELS, strict=True)
            ],
        )


class FinishingFigures:
    """Plain counters of a worker's wish to finish; `refused` is by the reason."""

    __slots__ = ("asked", "failures", "refused")

    def __init__(self) -> None:
        self.refused: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.reset()

    def reset(self) -> None:
        """Every count back to zero, in place."""
        self.refused.update(dict.fromkeys(REASONS, 0))
        self.asked = 0
        self.failures = 0  # of the user's own hook

    def totals(self) -> dict[str, Any]:
        """The sums, JSON-able."""
        return {
            "asked": self.asked,
            "refused": {reason: count for reason, count in self.refused.items() if count},
        }

    def families(self, *, finishing: bool) -> Iterator[Family]:
        """The families of finishing."""
        yield gauge(
            "perf_memory_finishing",
            "Workers that drain and exit for want of memory.",
            [Value(NO_LABELS, int(finishing))],
        )
        yield counter(
            "perf_memory_finishes",
            "Workers that were asked to finish for want of memory.",
            [Value(NO_LABELS, self.asked)],
        )
        yield counter(
            "perf_memory_finish_refusals",
            "Looks at which a worker should have finished and could not yet.",
            [Value(_REASON_LABELS[reason], count) for reason, count in self.refused.items()],
        )
        yield counter(
            "perf_memory_finish_failures",
            "Calls of the hook for finishing that raised.",
            [Value(NO_LABELS, self.failures)],
        )

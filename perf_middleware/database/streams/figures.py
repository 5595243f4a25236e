"""What the stream guard has counted for one database, and its families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.database.streams.cases import KEPT, Case
from perf_middleware.families import Family, LabelSet, Value, counter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class StreamCounts:
    """Connections given back, and those kept, by the reason: once for each transaction."""

    __slots__ = ("failures", "kept", "releases")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.releases = self.failures = 0
        self.kept: dict[Case, int] = dict.fromkeys(KEPT, 0)

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        kept = {case.value: count for case, count in self.kept.items()}
        return {"released": self.releases, "kept": kept, "failures": self.failures}


def families(counted: Sequence[tuple[str, StreamCounts]]) -> Iterable[Family]:
    """The families of all databases, each under its name."""
    labelled = [(LabelSet([("database", name)]), counts) for name, counts in counted]
    yield counter(
        "perf_database_stream_releases",
        "Connections that went back to the pool because a response began to stream.",
        [Value(labels, counts.releases) for labels, counts in labelled],
    )
    yield counter(
        "perf_database_stream_kept",
        "Connections held by a streaming response: uncommitted work, a thread's, or needed.",
        [
            Value(LabelSet([*labels.pairs, ("reason", case.value)]), count)
            for labels, counts in labelled
            for case, count in counts.kept.items()
        ],
    )
    yield counter(
        "perf_database_stream_release_failures",
        "Connections that could not be given back in order.",
        [Value(labels, counts.failures) for labels, counts in labelled],
    )

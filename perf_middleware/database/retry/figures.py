"""What the retries have counted, and their families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from perf_middleware.database.retry.budget import KINDS, MILLI
from perf_middleware.database.retry.transient import REASONS
from perf_middleware.families import Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perf_middleware.database.retry.budget import Kind
    from perf_middleware.database.retry.transient import Reason

Outcome: TypeAlias = Literal[
    "retried",  # another attempt was made
    "attempts",  # it was the last one
    "budget",  # no token was left
    "deadline",  # the request has no time for another
    "commit_unknown",  # lost while committing, and not idempotent
    "committed",  # the unit had committed a part itself, and is not idempotent
    "joined",  # in a transaction or a run of somebody else, who may try the whole again
]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
RunEnd: TypeAlias = Literal["at_once", "after_retries", "failed"]
RUN_ENDS: Final[tuple[RunEnd, ...]] = get_args(RunEnd)


class RetryCounts:
    """Of one database: transient failures by what became of them, and runs by how they ended."""

    __slots__ = ("_kind_labels", "_retry_labels", "_run_labels", "failures", "runs")

    def __init__(self, database: str = "main") -> None:
        name = ("database", database)
        self._retry_labels = {
            (reason, outcome): LabelSet([name, ("reason", reason), ("outcome", outcome)])
            for reason in REASONS
            for outcome in OUTCOMES
        }
        self._run_labels = {end: LabelSet([name, ("outcome", end)]) for end in RUN_ENDS}
        self._kind_labels = {kind: LabelSet([name, ("kind", kind)]) for kind in KINDS}
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.failures: dict[tuple[Reason, Outcome], int] = dict.fromkeys(self._retry_labels, 0)
        self.runs: dict[RunEnd, int] = dict.fromkeys(RUN_ENDS, 0)

    def failed(self) -> list[Value]:
        """Transient failures by reason and outcome."""
        return [Value(self._retry_labels[key], count) for key, count in self.failures.items()]

    def ended(self) -> list[Value]:
        """Runs by their end."""
        return [Value(self._run_labels[end], count) for end, count in self.runs.items()]

    def left(self, tokens_milli: Mapping[Kind, int]) -> list[Value]:
        """What is left of the budgets."""
        return [Value(self._kind_labels[kind], m / MILLI) for kind, m in tokens_milli.items()]


def families(
    databases: Sequence[tuple[RetryCounts, Mapping[Kind, int]]],
) -> Iterable[Family]:
    """The families of all databases, each with the tokens that it has left, for a scrape."""
    yield counter(
        "perf_database_retries",
        "Transient failures of transactions, by reason and by what became of them: retried, "
        "or why not.",
        [value for counts, _ in databases for value in counts.failed()],
    )
    yield counter(
        "perf_database_runs",
        "Units of work by how they ended: well at once, well after retries, with an error.",
        [value for counts, _ in databases for value in counts.ended()],
    )
    yield gauge(
        "perf_database_retry_tokens",
        "Retries that may be made now, by kind.",
        [value for counts, tokens in databases for value in counts.left(tokens)],
        across="min",
    )

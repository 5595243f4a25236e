"""One run: what it has read is collected, and says whether what it gave may be kept."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perf_middleware.database.queries import reasons
from perf_middleware.database.queries.drivers.watching import CURRENT_RUN, Run
from perf_middleware.database.queries.stores import Made
from perf_middleware.database.queries.ttl import DAY_US
from perf_middleware.database.tables.touched import AllTables
from perf_middleware.database.tracking.runtime import CURRENT_READS, Reads, collecting_reads
from perf_middleware.errors import UncacheableQueryError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collected:
    """What one run has read, and how old that was."""

    __slots__ = ("reads", "run")

    def __init__(self, reads: Reads, run: Run) -> None:
        self.reads = reads
        self.run = run

    def why_not(self, *, is_timed: bool) -> str:
        """Why what was made of it may not be kept; empty where it may."""
        reads = self.reads
        if isinstance(reads.tables, AllTables):
            return reasons.ANY_TABLE
        if reads.has_written:
            return reasons.WROTE
        if reads.is_of_a_copy:
            return reasons.REPLICA
        if self.run.is_old:
            return reasons.OLD
        if not reads.tags() and not is_timed:
            return reasons.NO_TABLES
        return ""


@contextmanager
def collecting(newest_purge: int) -> Iterator[Collected]:
    """Collect what is read in this block; whoever collects around it has it too."""
    run = Run(newest_purge)
    token = CURRENT_RUN.set(run)
    try:
        with collecting_reads() as reads:
            yield Collected(reads, run)
    finally:
        CURRENT_RUN.reset(token)


def made_of(
    value: Any,
    collected: Collected,
    *,
    ttl_us: int | None,
    tags: tuple[str, ...],
    copy: bool,
    reason: str = "",
) -> tuple[str, Made]:
    """What a run made, with what it depends on beside it; and why it is not to be kept."""
    reason = reason or collected.why_not(is_timed=ttl_us is not None)
    all_tags = tuple(sorted({*collected.reads.tags(), *tags}))
    return reason, Made(
        value=(all_tags, value),
        tags=all_tags,
        ttl_us=DAY_US if ttl_us is None else ttl_us,
        copy=copy,
        is_to_keep=not reason,
    )


def depends(given: Any) -> Any:
    """The value; who collects what this request reads collects what it was made of."""
    tags, value = given
    reads = CURRENT_READS.get()
    if reads is not None:
        reads.add_tags(tags)
    return value


def require_plain(value: Any) -> None:
    """Raises UncacheableQueryError for what belongs to a session: another one cannot use it."""
    first = value
    if isinstance(value, list | tuple | set | frozenset) and value:
        first = next(iter(value))
    elif isinstance(value, dict) and value:
        first = next(iter(value.values()))
    for each in (value, first):
        kind = type(each)
        if hasattr(kind, "_sa_class_manager"):
            raise UncacheableQueryError(
                f"the function returned {kind.__name__}, an object of its session",
                "return dicts or a dataclass of it, or use queries.execute()",
            )
        if kind.__module__.startswith("sqlalchemy.") and hasattr(kind, "_mapping"):
            raise UncacheableQueryError(
                "the function returned rows of SQLAlchemy",
                "return [dict(row._mapping) for row in rows], or use queries.execute()",
            )
        if kind.__module__.startswith("sqlalchemy.") and hasattr(kind, "scalars"):
            raise UncacheableQueryError(
                "the function returned a result, which can be read once",
                "return what is in it, or use queries.execute()",
            )

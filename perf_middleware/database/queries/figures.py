"""What the query cache did, counted by query; pulled at a scrape.

Each call ends as one of: a hit, a miss, collapsed, bypassed.  A query is named by what its author
wrote: the part of a key before its first colon, or the tables that a statement reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import NO_LABELS, OTHER, Family, LabelSet, Value, counter

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES_MAX: Final = 200  # beyond, queries count together as `other`
NAME_CHARS_MAX: Final = 60


class Counts:
    """Plain counters of one query."""

    __slots__ = ("collapsed", "hits", "misses", "stored")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.hits = 0
        self.misses = 0
        self.collapsed = 0
        self.stored = 0


class QueryFigures:
    """The counters of one query cache."""

    def __init__(self) -> None:
        self.by_name: dict[str, Counts] = {}
        self.bypassed: dict[str, int] = {}
        self.unkept: dict[str, int] = {}
        self.refused = 0

    def of(self, name: str) -> Counts:
        """The counts of a query; after NAMES_MAX, those that all further ones share."""
        name = name[:NAME_CHARS_MAX]
        counts = self.by_name.get(name)
        if counts is None:
            if len(self.by_name) >= NAMES_MAX:
                name = OTHER
            counts = self.by_name.setdefault(name, Counts())
        return counts

    def note_bypass(self, reason: str) -> None:
        self.bypassed[reason] = self.bypassed.get(reason, 0) + 1

    def note_unkept(self, reason: str) -> None:
        self.unkept[reason] = self.unkept.get(reason, 0) + 1

    def reset(self) -> None:
        """Every count back to zero, in place: statements hold on to theirs."""
        for counts in self.by_name.values():
            counts.reset()
        self.bypassed.clear()
        self.unkept.clear()
        self.refused = 0

    def status(self) -> dict[str, Any]:
        """The sums, JSON-able."""
        rows = list(self.by_name.values())
        hits = sum(row.hits for row in rows)
        collapsed = sum(row.collapsed for row in rows)
        asked = hits + collapsed + sum(row.misses for row in rows)
        return {
            "hits": hits,
            "misses": sum(row.misses for row in rows),
            "collapsed": collapsed,
            "stored": sum(row.stored for row in rows),
            "hit_ratio": round((hits + collapsed) / asked, 4) if asked else None,
            "bypassed": dict(self.bypassed),
            "unkept": dict(self.unkept),
            "refused": self.refused,
        }

    def families(self) -> Iterator[Family]:
        """Everything that /metrics tells of it."""
        rows = [(LabelSet([("query", name)]), row) for name, row in list(self.by_name.items())]
        for field, text in (
            ("hits", "Queries answered from what was kept."),
            ("misses", "Those that ran."),
            ("collapsed", "Those answered by another's run."),
            ("stored", "Answers that were kept."),
        ):
            points = tuple(Value(label, getattr(row, field)) for label, row in rows)
            yield counter(f"perf_query_cache_{field}", text, points)
        for name, text, by_reason in (
            ("bypassed", "Queries that ran as if there were no cache.", self.bypassed),
            ("unkept", "Answers that were not kept.", self.unkept),
        ):
            values = (
                Value(LabelSet([("reason", reason)]), count)
                for reason, count in sorted(by_reason.items())
            )
            yield counter(f"perf_query_cache_{name}", text, tuple(values))
        yield counter(
            "perf_query_cache_refused",
            "Statements that cannot be cached, and were an error.",
            (Value(NO_LABELS, self.refused),),
        )

"""Figures of listening, and what operators are told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.database.outside.triggers import KINDS
from perf_middleware.families import NO_LABELS, Family, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAMES_MAX: Final = 10  # of tables in one line of the log


@dataclass(slots=True)
class Counts:
    """What has happened since the start, or since the counts were set back."""

    notifications: int = 0
    own: int = 0
    purges: int = 0
    everything: int = 0
    failures: int = 0
    connections: int = 0
    ousted: int = 0


HELP: Final = {
    "notifications": "Notifications of written tables that were heard.",
    "own": "Of those, how many this process had purged already: its own commits.",
    "purges": "Purges after notifications; those of a few milliseconds share one.",
    "everything": "Of those, how often all tables were purged: after a time of not listening, "
    "after a migration, and for what was not understood.",
    "failures": "Purges after notifications that failed; each is tried again.",
    "connections": "Connections made to listen; what is more than 1 was made anew.",
    "ousted": "Connections of silent processes that were ended to listen in their place.",
}


def families(counts: Counts, *, listens: bool, unheard: int) -> Iterator[Family]:
    """The families of one process."""
    for name, count in asdict(counts).items():
        yield counter(f"perf_database_outside_{name}", HELP[name], [Value(NO_LABELS, count)])
    yield gauge(
        "perf_database_outside_listening",
        "Whether this process listens for writes from outside; with Redis one of all does.",
        [Value(NO_LABELS, float(listens))],
    )
    yield gauge(
        "perf_database_outside_tables_unheard",
        "Tables whose writes from outside are not heard: without the trigger, as this process "
        "has found when it looked last.",
        [Value(NO_LABELS, unheard)],
        across="max",
    )


def unheard(rows: Iterable[tuple[str, str, bool]]) -> tuple[str, ...]:
    """Name and, where it has one, reason of each table that is not heard.

    A row is the table's name, the kind of `pg_class.relkind`, and whether it is heard.
    """
    told = []
    for shown, kind, is_heard in sorted(rows):  # not in the order of the server's language
        if kind in KINDS:
            told.append(f"{shown} ({KINDS[kind]})")
        elif not is_heard:
            told.append(shown)
    return tuple(told)


def listed(names: tuple[str, ...], names_max: int = NAMES_MAX) -> str:
    """`a, b and 3 more`."""
    more = len(names) - names_max
    shown = ", ".join(names[:names_max])
    return f"{shown} and {more} more" if more > 0 else shown

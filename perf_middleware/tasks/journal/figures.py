"""What a journal has counted, and its families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class JournalCounts:
    """Plain counters of one process; the last four tell the file, as it was seen last."""

    accepted: int = 0
    refused_full: int = 0
    refused_unavailable: int = 0
    taken_over: int = 0
    handed_back: int = 0
    removed: int = 0
    buried: int = 0
    batches: int = 0
    failures: int = 0
    entries: int = 0
    kept_bytes: int = 0
    dead: int = 0
    unregistered: int = 0


def families(counts: JournalCounts, *, is_up: bool) -> Iterable[Family]:
    """The families for a scrape."""
    yield gauge(
        "perf_journal_up",
        "1 while durable tasks are accepted, 0 while the journal is not open or not to be written.",
        [Value(NO_LABELS, int(is_up))],
        across="min",
    )
    for name, told, value in (
        ("accepted", "Durable tasks that were accepted.", counts.accepted),
        ("removed", "Accepted tasks that have run, or that the app has cancelled.", counts.removed),
        ("buried", "Accepted tasks that became dead letters.", counts.buried),
        ("taken_over", "Accepted tasks of processes that have ended, claimed.", counts.taken_over),
        ("handed_back", "Accepted tasks left to another process, or start.", counts.handed_back),
        ("commits", "Transactions; each serves all that was asked meanwhile.", counts.batches),
        ("failures", "Transactions that failed: a full disk, a file that is locked ...",
         counts.failures),
    ):  # fmt: skip
        yield counter(f"perf_journal_{name}", told, [Value(NO_LABELS, value)])
    yield counter(
        "perf_journal_refused",
        "Durable tasks that were not accepted, by reason.",
        [
            Value(LabelSet([("reason", "full")]), counts.refused_full),
            Value(LabelSet([("reason", "unavailable")]), counts.refused_unavailable),
        ],
    )
    for name, told, value in (
        ("entries", "Entries in the file, of all processes, dead letters too.", counts.entries),
        ("dead_letters", "Dead letters in the file.", counts.dead),
        ("unregistered", "Accepted tasks without a process that knows them.", counts.unregistered),
    ):
        # Each process tells the same of one file.
        yield gauge(f"perf_journal_{name}", told, [Value(NO_LABELS, value)], across="max")
    yield gauge(
        "perf_journal_bytes",
        "About how many bytes the entries take.",
        [Value(NO_LABELS, counts.kept_bytes)],
        unit="bytes",
        across="max",
    )

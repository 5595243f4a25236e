"""Was a read stale?  Decided from what a client has seen, with its own clock alone.

           PUT: version 8                        bound
    ------[-----------------]-------------------------------|------------------> time
               certain from here on                         reads that start here give 8 or newer

The versions of one thing only grow.  Who has its answer to a write knows that it is done; a write
without an answer (its server was killed) may have happened or not, so nothing is expected of it.  A
read may give what was there when it started or anything newer: only its start counts.

A soft purge promises less: each process may give the old once more, to who asks first, while it
asks the app anew.  `expected_after_soft` makes of that what the process itself is held to.

Source: the freshness half of k-atomicity, Golab, Li, Shah, Analyzing Consistency Properties for Fun
and Profit, PODC 2011 (Delta-atomicity: how old the value of a read is at most).
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Write:
    """`version` is what each of `places` has at least, once this is done.

    A purge is one too: of the version that its caller knew to be there.
    """

    places: frozenset[str]
    version: int
    start_s: float
    end_s: float
    certain: bool = True
    """Whether its answer came: else it may have happened or not."""
    what: str = ""

    def __post_init__(self) -> None:
        if self.end_s < self.start_s:
            raise ValueError(f"it ends before it starts: {self}")


@dataclass(frozen=True, slots=True)
class Read:
    """What somebody was given of `place`."""

    place: str
    version: int
    start_s: float
    end_s: float
    by: str = ""


@dataclass(frozen=True, slots=True)
class Staleness:
    """A read of what a write had replaced `seconds` before the read started."""

    read: Read
    write: Write
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history shows."""

    reads: int
    writes: int
    maybe: int
    outdated: int
    """Reads of what was replaced before they started, within the bound or not."""
    worst: Staleness | None
    stale: tuple[Staleness, ...]
    """Those beyond the bound."""

    @property
    def worst_s(self) -> float:
        return 0.0 if self.worst is None else self.worst.seconds


def judge(writes: Iterable[Write], reads: Iterable[Read], *, bound_s: float) -> Verdict:
    """Which reads started later than `bound_s` after the end of a write that they do not show."""
    writes, reads = list(writes), list(reads)
    certain = [write for write in writes if write.certain]
    known = _first_ends(certain)
    outdated = sorted(
        (found for read in reads if (found := _staleness(read, known)) is not None),
        key=lambda found: found.seconds,
        reverse=True,
    )
    return Verdict(
        reads=len(reads),
        writes=len(certain),
        maybe=len(writes) - len(certain),
        outdated=len(outdated),
        worst=outdated[0] if outdated else None,
        stale=tuple(found for found in outdated if found.seconds > bound_s),
    )


def expected_after_soft(
    purges: Iterable[Write], reads: Iterable[Read], *, bound_s: float
) -> tuple[list[Write], list[Read]]:
    """What each process is held to after soft purges, and its reads, for `judge`.

    It has heard of a purge within the bound; the first of its reads of a place that starts then
    makes it ask, and counts as a write of this process alone.
    """
    own = [replace(read, place=f"{read.place} of {read.by}") for read in reads]
    by_place: defaultdict[str, list[Read]] = defaultdict(list)
    for read in own:
        by_place[read.place].append(read)
    expected = []
    for place, read_there in by_place.items():
        read_there.sort(key=lambda read: read.start_s)
        starts = [read.start_s for read in read_there]
        path = place.removesuffix(f" of {read_there[0].by}")
        for purge in purges:
            at = bisect_right(starts, purge.end_s + bound_s)
            if purge.certain and path in purge.places and at < len(starts):
                first = read_there[at]
                expected.append(
                    replace(
                        purge, places=frozenset({place}), start_s=first.start_s, end_s=first.end_s
                    )
                )
    return expected, own


def _first_ends(writes: list[Write]) -> dict[str, tuple[list[int], list[Write]]]:
    """For each place its versions, and for each of them the first write of it or a newer one."""
    by_place: defaultdict[str, list[Write]] = defaultdict(list)
    for write in writes:
        for place in write.places:
            by_place[place].append(write)
    known = {}
    for place, own in by_place.items():
        own.sort(key=lambda write: write.version)
        for at in range(len(own) - 2, -1, -1):
            own[at] = _with_version_of(own[at], own[at + 1])
        known[place] = ([write.version for write in own], own)
    return known


def _with_version_of(write: Write, newer: Write) -> Write:
    """The one that ended first, as what a read of less than `write.version` has missed."""
    if write.end_s <= newer.end_s:
        return write
    return replace(newer, version=write.version)


def _staleness(read: Read, known: dict[str, tuple[list[int], list[Write]]]) -> Staleness | None:
    versions, firsts = known.get(read.place, ((), ()))
    at = bisect_right(versions, read.version)
    if at == len(versions):
        return None
    missed = firsts[at]
    seconds = read.start_s - missed.end_s
    return Staleness(read, missed, seconds) if seconds > 0 else None

"""Was an older version shown than must have been?  Decided from what clients saw alone.

         write of v8                          read begun here: v8 or newer
    ----[-----------]------------------------|------------------------------> time
        may be seen  must be seen

One operation comes *before* another if it ended before the other began (Herlihy & Wing).  All in
all, a history of one row is linearizable if its operations can be put in a line that keeps this
order and in which each read shows the write before it.  In general that takes a search (Wing &
Gong); here the versions name the line, so that it is exact and cheap to ask for two operations at a
time: nothing comes before what is of an older version (Gibbons & Korach: with the order of writes
known).  Rows are judged one by one: a whole is linearizable if each part is (Herlihy & Wing,
locality).

    stale       a read begun after the answer to a write shows an older version: never allowed
    unwritten   a read shows what nobody has written
    rolled_back a read shows what was rolled back
    foreseen    a read shows a version before its write began
    torn        one statement's rows are not of one moment, or show half a transaction
    disorder    writes do not follow each other: the database or the driver is broken, not the cache
    backwards   a read shows an older version than a read before it: allowed, but counted

*Is `backwards` promised away?*  No.  A committed write is in the database before any cache can hear
of it: who has to ask the app sees it, while another process shows the older answer until the purge
has reached it, and the writer has its answer only after that.  So two reads beside a write may
see the new and then the old.  Who waits for the answer to a write is safe from it, and so is
everybody who heard from him.  Where the writer is killed between COMMIT and purge this lasts until
others purge in its place, four seconds later: nobody had an answer until then.

A write without an answer may have happened or not, at any time after its begin: nothing is expected
before somebody has seen it.  A deletion whose version nobody learned excuses reads that find no
row; that is the one place where the judge is kinder than a search would be.

Sources: Herlihy, Wing, Linearizability: A Correctness Condition for Concurrent Objects, TOPLAS
1990; Wing, Gong, Testing and Verifying Concurrent Objects, JPDC 1993; Gibbons, Korach, Testing
Shared Memories, SIAM J. Comput. 1997.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import combinations
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from tests.database.linearizability.history import History, Operation, Read, Seen, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind: TypeAlias = Literal[
    "stale", "unwritten", "rolled_back", "foreseen", "torn", "disorder", "backwards"
]

CONTEXT_US = 200_000


@dataclass(frozen=True, slots=True)
class Violation:
    """`operation` is wrong because of `against`, `behind_us` after it had ended."""

    kind: Kind
    key: str
    operation: Operation
    against: Operation | None = None
    behind_us: int = 0

    def told(self, history: History) -> str:
        """What it is, and what others did with this row meanwhile."""
        begun_us = self.operation.begun_us if self.against is None else self.against.begun_us
        around = history.around(
            self.key, min(begun_us, self.operation.begun_us) - CONTEXT_US, self.operation.ended_us
        )
        return (
            f"{self.kind} by {self.behind_us / 1_000:.1f} ms, {self.key}:\n  {self.operation}\n"
            f"  against {self.against}\n{around}\n"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history shows."""

    violations: tuple[Violation, ...]

    def of(self, *kinds: Kind) -> list[Violation]:
        """Those of these kinds, the longest behind first."""
        found = [violation for violation in self.violations if violation.kind in kinds]
        return sorted(found, key=lambda violation: -violation.behind_us)

    @property
    def broken(self) -> list[Violation]:
        """All that must not be, whatever is promised of reads among each other."""
        return [violation for violation in self.violations if violation.kind != "backwards"]

    @property
    def is_linearizable(self) -> bool:
        return not self.violations

    def counts(self) -> Counter[str]:
        return Counter(violation.kind for violation in self.violations)


def judge(history: History) -> Verdict:
    """All violations of a history."""
    rows = _Rows(history)
    found = list(rows.impossible())
    for key in rows.keys:
        found += rows.judged(key)
    found += rows.torn()
    return Verdict(tuple(found))


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation on one row.  `version` is None where it is a read that found no row."""

    operation: Operation
    begun_us: int
    ended_us: float
    version: int | None


@dataclass(frozen=True, slots=True)
class _Deletion:
    version: int | None
    begun_us: int


class _Rows:
    """A history by row; a version that no answer told is known if somebody saw it."""

    def __init__(self, history: History) -> None:
        self._reads = history.reads
        self._ops = {write.op: write for write in history.writes}
        if len(self._ops) != len(history.writes):
            raise ValueError("two writes have the same op")
        self._learned = dict(history.learned)
        self._impossible: list[Violation] = []
        self._shown: defaultdict[str, list[tuple[Read, Seen]]] = defaultdict(list)
        for read in history.reads:
            for seen in read.seen:
                kind = self._doubt(seen)
                if kind is None:
                    self._shown[seen.key].append((read, seen))
                else:
                    against = None if seen.op is None else self._ops.get(seen.op)
                    self._impossible.append(Violation(kind, seen.key, read, against))
        self._writes: defaultdict[str, list[_Step]] = defaultdict(list)
        self._deletions: defaultdict[str, list[_Deletion]] = defaultdict(list)
        for write in history.writes:
            self._add(write)
        self.keys = sorted(self._shown.keys() | self._writes.keys())

    def impossible(self) -> Iterator[Violation]:
        return iter(self._impossible)

    def _doubt(self, seen: Seen) -> Kind | None:
        """Why nobody can have seen this; what is seen of a write without an answer is learned."""
        if seen.version is None or seen.op is None:
            return None
        write = self._ops.get(seen.op)
        if write is None:
            return "unwritten"
        if write.outcome == "failed":
            return "rolled_back"
        for change in write.changes:
            if change.key == seen.key and change.is_there:
                version = change.version
                if version is None:
                    version = self._learned.setdefault((seen.op, seen.key), seen.version)
                return None if version == seen.version else "unwritten"
        return "rolled_back"  # a part of it that it took back: its savepoint

    def _add(self, write: Write) -> None:
        if write.outcome == "failed":
            return
        ended_us = write.ended_us if write.outcome == "ok" else inf
        for change in write.changes:
            version = change.version
            if version is None:
                version = self._learned.get((write.op, change.key))
            if not change.is_there:
                self._deletions[change.key].append(_Deletion(version, write.begun_us))
            if version is not None:
                step = _Step(write, write.begun_us, ended_us, version)
                self._writes[change.key].append(step)

    # --- one row ----------------------------------------------------------------------------------

    def judged(self, key: str) -> list[Violation]:
        """Sweep over the operations in the order of their begin; the newest that ended counts."""
        writes = self._writes[key]
        found = list(_same_version_twice(key, writes))
        steps = writes + [
            _Step(read, read.begun_us, read.ended_us, seen.version)
            for read, seen in self._shown[key]
        ]
        # Of two that begin at once neither has ended before the other: their order is free.
        steps.sort(key=lambda step: step.begun_us)
        ending: list[tuple[float, int, _Step]] = []
        ended: dict[type, _Step] = {}
        for number in range(len(steps)):
            step = steps[number]
            while ending and ending[0][0] < step.begun_us:
                _keep_newest(ended, heappop(ending)[2])
            if step.version is None:
                step = steps[number] = self._version_of_absence(key, step, ended.values())
                if step.version is None:
                    found.append(Violation("unwritten", key, step.operation))
                    continue
            violation = _violation(key, step, ended.get(Write), ended.get(Read), steps)
            if violation is not None:
                found.append(violation)
            heappush(ending, (step.ended_us, number, step))
        return found

    def _version_of_absence(self, key: str, step: _Step, ended: Iterable[_Step]) -> _Step:
        """The same with the deletion that it shows: the oldest that is new enough, else the newest.

        The oldest asks the least of what comes after it; one whose version nobody learned, nothing.
        """
        least = max((_version(one) for one in ended), default=0)
        possible = [one for one in self._deletions[key] if one.begun_us <= step.ended_us]
        versions = sorted(one.version for one in possible if one.version is not None)
        at = bisect_right(versions, least - 1)
        if len(versions) < len(possible):
            version: int | None = least
        elif at < len(versions):
            version = versions[at]
        else:
            version = versions[-1] if versions else None
        return _Step(step.operation, step.begun_us, step.ended_us, version)

    # --- several rows of one moment ---------------------------------------------------------------

    def torn(self) -> Iterator[Violation]:
        """Snapshots that no moment can have shown; rows that are not there say nothing here."""
        begun = {key: {_version(one): one for one in own} for key, own in self._writes.items()}
        replaced = {key: _Replaced(own) for key, own in self._writes.items()}
        pairs = self._pairs()
        for read in self._reads:
            if not read.is_snapshot:
                continue
            shown = {
                seen.key: seen.version
                for seen in read.seen
                if seen.version is not None and seen.version in begun.get(seen.key, {})
            }
            if len(shown) < 2:
                continue
            key = max(shown, key=lambda key: begun[key][shown[key]].begun_us)
            newest = begun[key][shown[key]]
            over = min(
                (replaced[key].first_end(version) for key, version in shown.items()),
                key=lambda step: inf if step is None else step.ended_us,
            )
            if over is not None and over.ended_us < newest.begun_us:
                behind_us = int(newest.begun_us - over.ended_us)
                yield Violation("torn", key, read, over.operation, behind_us)
                continue
            for one, other in combinations(sorted(shown), 2):
                both = pairs.get((one, other))
                if both is not None and both.are_torn(shown[one], shown[other]):
                    yield Violation("torn", one, read)

    def _pairs(self) -> dict[tuple[str, str], _Pair]:
        """The transactions that wrote two rows, by these."""
        versions: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        written: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for key, steps in self._writes.items():
            for step in steps:
                assert isinstance(step.operation, Write)
                written[step.operation.op][key] = _version(step)
        for by_key in written.values():
            for one, other in combinations(sorted(by_key), 2):
                versions[one, other].append((by_key[one], by_key[other]))
        return {keys: _Pair(sorted(both)) for keys, both in versions.items()}


class _Replaced:
    """Of the writes of one row: the first that ended of those newer than a version."""

    def __init__(self, steps: list[_Step]) -> None:
        own = sorted(steps, key=_version)
        self._versions = [_version(step) for step in own]
        for at in range(len(own) - 2, -1, -1):
            if own[at + 1].ended_us < own[at].ended_us:
                own[at] = own[at + 1]
        self._first = own

    def first_end(self, version: int) -> _Step | None:
        at = bisect_right(self._versions, version)
        return self._first[at] if at < len(self._first) else None


class _Pair:
    """Transactions that wrote the same two rows: of both the same number is to be seen."""

    def __init__(self, versions: list[tuple[int, int]]) -> None:
        self._one = [one for one, _ in versions]
        self._other = [other for _, other in versions]

    def are_torn(self, one: int, other: int) -> bool:
        return bisect_right(self._one, one) != bisect_right(self._other, other)


def _version(step: _Step) -> int:
    assert step.version is not None
    return step.version


def _keep_newest(ended: dict[type, _Step], step: _Step) -> None:
    kind = type(step.operation)
    if kind not in ended or _version(ended[kind]) < _version(step):
        ended[kind] = step


def _violation(
    key: str, step: _Step, write: _Step | None, read: _Step | None, steps: list[_Step]
) -> Violation | None:
    """What is wrong with `step` after the newest write and the newest read that ended before it."""
    version, operation = _version(step), step.operation
    if isinstance(operation, Write):
        if write is not None and _version(write) >= version:
            return Violation("disorder", key, operation, write.operation)
        if read is not None and _version(read) >= version:
            return Violation("foreseen", key, read.operation, operation)
        return None
    for kind, newest in (("stale", write), ("backwards", read)):
        if newest is not None and _version(newest) > version:
            return _behind(kind, key, step, type(newest.operation), steps)
    return None


def _behind(kind: Kind, key: str, step: _Step, of: type, steps: list[_Step]) -> Violation:
    """Against the first that ended of all that are newer: so long the read was behind."""
    newer = [
        one
        for one in steps
        if isinstance(one.operation, of) and (one.version or 0) > _version(step)
    ]
    first = min(newer, key=lambda one: one.ended_us)
    return Violation(kind, key, step.operation, first.operation,
                     int(step.begun_us - first.ended_us))  # fmt: skip


def _same_version_twice(key: str, writes: list[_Step]) -> Iterator[Violation]:
    seen: dict[int, _Step] = {}
    for step in writes:
        if step.version is not None:
            earlier = seen.setdefault(step.version, step)
            if earlier is not step:
                yield Violation("disorder", key, step.operation, earlier.operation)

"""The judge finds what a search finds, and nothing in what a real sequential table has shown."""

import random
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.database.linearizability.history import Change, History, Read, Seen, Write
from tests.database.linearizability.judge import judge

FIRST = Write(1, (Change("a", 1), Change("b", 1)), 0, 0)


def write(op, version, begun_us, ended_us, outcome="ok", *, key="a", is_there=True):
    return Write(op, (Change(key, version, is_there),), begun_us, ended_us, outcome)


def read(version, op, begun_us, ended_us, *, key="a"):
    return Read((Seen(key, version, op),), begun_us, ended_us)


def kinds(*operations, **learned):
    history = History([FIRST])
    for operation in operations:
        (history.writes if isinstance(operation, Write) else history.reads).append(operation)
    history.learned = {(int(op[2:]), "a"): version for op, version in learned.items()}
    return [violation.kind for violation in judge(history).violations]


@pytest.mark.parametrize(
    ("operations", "found"),
    [
        pytest.param([read(1, 1, 5, 9)], [], id="what was there"),
        pytest.param([write(2, 2, 10, 20), read(1, 1, 21, 25)], ["stale"], id="after the answer"),
        pytest.param([write(2, 2, 10, 20), read(1, 1, 20, 25)], [], id="begun as it came"),
        pytest.param([write(2, 2, 10, 20), read(2, 2, 11, 12)], [], id="seen before the answer"),
        pytest.param([write(2, 2, 10, 20), read(2, 2, 8, 9)], ["foreseen"], id="before it began"),
        pytest.param([read(7, 7, 8, 9)], ["unwritten"], id="a write that nobody sent"),
        pytest.param([write(2, 2, 10, 20), read(3, 2, 21, 22)], ["unwritten"],
                     id="not its version"),
        pytest.param([write(2, None, 10, 20, "failed"), read(2, 2, 21, 22)], ["rolled_back"],
                     id="rolled back"),
        pytest.param([write(2, 2, 10, 20, key="b"), read(2, 2, 21, 22)], ["rolled_back"],
                     id="the part that was rolled back"),
        pytest.param([write(2, 2, 1, 9), read(2, 2, 2, 3), read(1, 1, 4, 5)], ["backwards"],
                     id="the old after the new, beside the write"),
        pytest.param([write(2, 2, 1, 9), read(2, 2, 2, 4), read(1, 1, 4, 5)], [],
                     id="the old beside the new"),
        pytest.param([write(2, 2, 1, 9), write(3, 2, 10, 11)], ["disorder"] * 2,
                     id="a version made twice"),
        pytest.param([write(2, 3, 1, 9), write(3, 2, 10, 11)], ["disorder"], id="versions fall"),
        pytest.param([write(2, None, 10, 20, "unknown"), read(1, 1, 30, 31), read(2, 2, 40, 41)],
                     [], id="no answer: it may come to be seen late"),
        pytest.param([write(2, None, 10, 20, "unknown"), read(2, 2, 30, 31), read(1, 1, 40, 41)],
                     ["backwards"], id="but not go again"),
        pytest.param([write(2, None, 10, 20, "unknown"), read(2, 2, 5, 6)], ["foreseen"],
                     id="nor before it began"),
        pytest.param([write(2, None, 10, 20, "unknown"), read(2, 2, 30, 31), read(3, 2, 40, 41)],
                     ["unwritten"], id="nor be two versions"),
        pytest.param([read(None, None, 5, 6)], ["unwritten"], id="no row, and nobody deleted it"),
        pytest.param([write(2, 2, 10, 20, is_there=False), read(None, None, 21, 22)], [],
                     id="no row after the deletion"),
        pytest.param([write(2, 2, 10, 20, is_there=False), read(1, 1, 21, 22)], ["stale"],
                     id="the row after its deletion"),
        pytest.param([write(2, 2, 10, 20, is_there=False), write(3, 3, 21, 30),
                      read(None, None, 31, 32)], ["stale"], id="no row after it was made anew"),
        pytest.param([write(2, 2, 10, 20, is_there=False), write(3, 3, 21, 30),
                      read(3, 3, 22, 23), read(None, None, 24, 25)], ["backwards"],
                     id="no row after the new one was seen"),
        pytest.param([write(2, 2, 10, 20, is_there=False), write(3, 3, 11, 30),
                      read(None, None, 12, 13), read(1, 1, 14, 15)], ["backwards"],
                     id="the row after none was seen"),
        pytest.param([write(2, None, 10, 20, "unknown", is_there=False), read(None, None, 30, 31),
                      read(1, 1, 40, 41)], [], id="a deletion of which nothing is known"),
    ],
)  # fmt: skip
def test_each_violation_is_named(operations, found):
    assert kinds(*operations) == found


def test_what_is_learned_of_a_deletion_is_held_against_later_reads():
    gone = write(2, None, 10, 20, "unknown", is_there=False)
    anew = write(3, 3, 30, 40)
    seen_late = read(None, None, 41, 42)
    assert kinds(gone, anew, seen_late) == []
    assert kinds(gone, anew, seen_late, op2=2) == ["stale"]


def both(op, version, begun_us, ended_us):
    return Write(op, (Change("a", version), Change("b", version)), begun_us, ended_us)


def page(begun_us, ended_us, **versions):
    """A snapshot; the op of a version is its number."""
    seen = tuple(Seen(key, version, version) for key, version in versions.items())
    return Read(seen, begun_us, ended_us, is_snapshot=True)


@pytest.mark.parametrize(
    ("operations", "found"),
    [
        pytest.param([both(2, 2, 10, 20), page(11, 12, a=2, b=2)], [], id="a whole transaction"),
        pytest.param([both(2, 2, 10, 20), page(11, 12, a=2, b=1)], ["torn"], id="half of one"),
        pytest.param([both(2, 2, 10, 20), page(21, 22, a=2, b=1)], ["stale", "torn"],
                     id="and stale"),
        pytest.param([write(2, 2, 10, 12), write(3, 2, 15, 17, key="b"),
                      Read((Seen("a", 1, 1), Seen("b", 2, 3)), 9, 30, is_snapshot=True)], ["torn"],
                     id="two rows that never stood side by side"),
        pytest.param([write(2, 2, 10, 16), write(3, 2, 15, 17, key="b"),
                      Read((Seen("a", 1, 1), Seen("b", 2, 3)), 9, 30, is_snapshot=True)], [],
                     id="they may have"),
        pytest.param([write(2, 2, 10, 12), write(3, 2, 15, 17, key="b"),
                      Read((Seen("a", 1, 1), Seen("b", 2, 3)), 9, 30)], [],
                     id="a page of two statements"),
    ],
)  # fmt: skip
def test_the_rows_of_one_statement_are_of_one_moment(operations, found):
    assert kinds(*operations) == found


def test_it_says_how_long_a_read_was_behind():
    history = History([FIRST, write(2, 2, 10, 20), write(3, 3, 30, 40)])
    history.reads = [read(1, 1, 100, 110)]
    [violation] = judge(history).of("stale")
    assert violation.behind_us == 80
    assert violation.against.op == 2
    told = violation.told(history)
    assert "stale by 0.1 ms, a:" in told
    assert told.count("writes v") == 3


def test_an_operation_that_ends_before_it_begins_is_none():
    with pytest.raises(ValueError, match="ends before it begins"):
        write(2, 2, 20, 10)


# --- beside a search ------------------------------------------------------------------------------


def search_finds_a_line(history, key="a"):
    """Wing & Gong: try each operation that nothing left comes before, as the next in line."""
    steps = []
    for one in history.writes:
        for change in one.changes:
            if change.key == key and one.outcome != "failed":
                ended_us = one.ended_us if one.outcome == "ok" else inf
                steps.append((one.begun_us, ended_us, one, change))
    for one in history.reads:
        steps += [(one.begun_us, one.ended_us, one, seen) for seen in one.seen if seen.key == key]
    seen_dead_ends = set()

    def place(left, version, op, is_there):
        if not left:
            return True
        if (left, version, op, is_there) in seen_dead_ends:
            return False
        first_end_us = min(steps[n][1] for n in left)
        for n in left:
            begun_us, _, one, what = steps[n]
            if begun_us > first_end_us:
                continue
            rest = left - {n}
            if isinstance(one, Read):
                state = (version, op) if is_there else (None, None)
                if (what.version, what.op) == state and place(rest, version, op, is_there):
                    return True
            elif what.version > version and place(rest, what.version, one.op, what.is_there):
                return True
        seen_dead_ends.add((left, version, op, is_there))
        return False

    return place(frozenset(range(len(steps))), 0, None, False)


@st.composite
def small_histories(draw):
    """Anything that may be claimed of one row; few values, so that much of it nearly fits."""
    history = History([FIRST])
    spans = st.tuples(st.integers(1, 12), st.integers(0, 6))
    for op in range(2, 2 + draw(st.integers(0, 4))):
        begun_us, lasted_us = draw(spans)
        outcome = draw(st.sampled_from(["ok", "ok", "ok", "unknown", "failed"]))
        version = draw(st.one_of(st.just(op), st.integers(2, 5)))
        is_there = draw(st.sampled_from([True, True, True, False]))
        if outcome == "unknown" and not is_there:
            history.learned[op, "a"] = version
        history.writes.append(
            write(op, version if outcome == "ok" else None, begun_us, begun_us + lasted_us, outcome,
                  is_there=is_there)
        )  # fmt: skip
        if outcome == "unknown" and is_there and draw(st.booleans()):
            history.learned[op, "a"] = version
    shown = [(None, None), (1, 1)]
    for one in history.writes[1:]:
        version = one.changes[0].version or history.learned.get((one.op, "a")) or one.op
        shown.append((version, one.op))
    for _ in range(draw(st.integers(0, 4))):
        begun_us, lasted_us = draw(spans)
        version, op = draw(st.sampled_from(shown))
        history.reads.append(read(version, op, begun_us, begun_us + lasted_us))
    return history


def with_versions_told(history):
    """Writes without an answer have the version that somebody saw; the others never happened."""
    told = History([], history.reads)
    seen = {(one.seen[0].op, "a"): one.seen[0].version for one in history.reads}
    for one in history.writes:
        version = history.learned.get((one.op, "a"), seen.get((one.op, "a")))
        if one.outcome != "unknown":
            told.writes.append(one)
        elif version is not None:
            change = replace(one.changes[0], version=version)
            told.writes.append(replace(one, changes=(change,)))
    return told


@given(small_histories())
def test_it_finds_what_a_search_finds(history):
    assert judge(history).is_linearizable == search_finds_a_line(with_versions_told(history))


# --- beside a real table --------------------------------------------------------------------------


class Table:
    """Rows behind a lock: each operation is done at one moment between its begin and its end."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.rows = {"a": (1, 1, True), "b": (1, 1, True)}
        self.history = History([FIRST])
        self.now_us = 1

    def run(self, count):
        clients = [self.random.randrange(5) for _ in range(5)]  # when each is free again
        for op in range(2, 2 + count):
            client = self.random.randrange(5)
            self.now_us = max(self.now_us, clients[client]) + self.random.randrange(1, 4)
            before_us, after_us = self.random.randrange(30), self.random.randrange(30)
            begun_us, ended_us = self.now_us - before_us, self.now_us + after_us
            begun_us = max(begun_us, clients[client])
            clients[client] = ended_us + 1
            self._write(op, begun_us, ended_us) if self.random.random() < 0.4 else self._read(
                begun_us, ended_us
            )
        return self.history

    def _write(self, op, begun_us, ended_us):
        keys = self.random.choice([["a"], ["b"], ["a", "b"]])
        outcome = self.random.choice(["ok", "ok", "ok", "failed", "unknown"])
        is_done = outcome == "ok" or (outcome == "unknown" and self.random.random() < 0.5)
        is_there = self.random.random() < 0.8
        changes = []
        for key in keys:
            version = self.rows[key][0] + 1
            changes.append(Change(key, version if outcome == "ok" else None, is_there))
            if is_done:
                self.rows[key] = (version, op, is_there)
                if outcome == "unknown" and self.random.random() < 0.5:
                    self.history.learned[op, key] = version
        self.history.writes.append(Write(op, tuple(changes), begun_us, ended_us, outcome))

    def _read(self, begun_us, ended_us):
        seen = []
        for key in ("a", "b"):
            version, op, is_there = self.rows[key]
            seen.append(Seen(key, version, op) if is_there else Seen(key, None, None))
        self.history.reads.append(Read(tuple(seen), begun_us, ended_us, is_snapshot=True))


def alone(one, key):
    """A read with this row only."""
    return next(seen for seen in one.seen if seen.key == key)


@given(st.integers(0, 2**32))
def test_nothing_is_found_in_what_a_real_table_has_shown(seed):
    assert judge(Table(seed).run(60)).violations == ()


@given(st.integers(0, 2**32), st.data())
def test_an_answer_given_again_after_a_newer_one_is_found(seed, data):
    """As a cache does that was not purged: what was read once is shown after the next write."""
    history = Table(seed).run(60)
    old = data.draw(st.sampled_from(history.reads)) if history.reads else None
    seen = None if old is None else alone(old, "a")
    newer = [
        one
        for one in history.writes
        for change in one.changes
        if seen is not None and seen.version is not None and one.outcome == "ok"
        and change.key == "a" and change.version > seen.version
    ]  # fmt: skip
    if not newer:
        return
    first_us = min(one.ended_us for one in newer)
    again = Read((seen,), first_us + 1, first_us + 9)
    history.reads.append(again)
    stale = judge(history).of("stale")
    assert [violation.operation for violation in stale] == [again]
    assert stale[0].behind_us == 1

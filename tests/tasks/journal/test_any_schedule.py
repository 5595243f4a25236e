"""Any schedule of accepting, beginning, ending, closing, dying and claiming, on the real file.

Each process is an end of the file with a lock of its own; what dies writes nothing any more.
"""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.tasks.journal.entries import JournalLimits, is_poison
from perf_middleware.tasks.journal.stores.sqlite import SqliteJournal

PROCESSES = 3
LIMITS = JournalLimits(starts_max=4)
STEPS = st.tuples(
    st.sampled_from(["accept", "accept", "begin", "begin", "end", "fail", "claim", "close", "die"]),
    st.integers(0, PROCESSES - 1),
    st.integers(0, 5),
)


class Process:
    def __init__(self, path):
        self.store = SqliteJournal(path, LIMITS, is_synced=False)
        self.has = {}  # entries that it has and has not begun, by number
        self.runs = {}

    def do(self, step):
        (given,) = self.store.run([step], is_synced=False)
        return given


class World:
    def __init__(self, path):
        self.path = path
        self.processes = [Process(path) for _ in range(PROCESSES)]
        self.accepted, self.ended, self.dead = set(), Counter(), set()
        self.began, self.told = Counter(), Counter()  # starts, and those whose end was told

    def accept(self, process, _):
        entry = process.do(lambda file: file.accept("task", b"[[],{}]", ""))
        self.accepted.add(entry.number)
        process.has[entry.number] = entry

    def begin(self, process, which):
        entry = chosen(process.has, which)
        if entry is None:
            return
        del process.has[entry.number]
        if is_poison(entry.starts, LIMITS):
            process.do(lambda file: file.bury(entry, "poison"))
            assert self.began[entry.number] - self.told[entry.number] >= LIMITS.starts_max
            self.dead.add(entry.number)
            return
        process.do(lambda file: file.begin(entry))
        self.began[entry.number] += 1
        process.runs[entry.number] = entry

    def end(self, process, which):
        entry = chosen(process.runs, which)
        if entry is not None:
            del process.runs[entry.number]
            process.do(lambda file: file.remove(entry))
            self.ended[entry.number] += 1
            self.told[entry.number] += 1

    def fail(self, process, which):
        entry = chosen(process.runs, which)
        if entry is not None:
            del process.runs[entry.number]
            process.do(lambda file: file.bury(entry, "it failed"))
            self.dead.add(entry.number)

    def claim(self, process, which):
        for entry in process.do(lambda file: file.claim(which + 1)):
            assert entry.number not in process.has
            process.has[entry.number] = entry

    def close(self, process, _):
        self.told.update(process.runs.keys())
        if process.store.is_open:
            process.do(lambda file: file.hand_back())
        process.store.close()
        self.again(process)

    def die(self, process, _):
        process.store._owner.forget()
        process.store.close()
        self.again(process)

    def again(self, process):
        self.processes[self.processes.index(process)] = Process(self.path)

    def check(self):
        held = Counter(number for each in self.processes for number in (*each.has, *each.runs))
        assert all(count == 1 for count in held.values()), "two have the same entry"
        assert not self.dead & held.keys()
        assert not self.ended.keys() & held.keys()

    def finish(self):
        """One process is left, and does all there is to do."""
        last, *others = self.processes
        for process in others:
            self.die(process, 0)
        for _ in range(len(self.accepted) + 1):
            self.claim(last, 5)
            while last.has:
                self.begin(last, 0)
            while last.runs:
                self.end(last, 0)
        for process in self.processes:
            process.store.close()


def chosen(entries, which):
    return list(entries.values())[which % len(entries)] if entries else None


@settings(max_examples=40)
@given(schedule=st.lists(STEPS, min_size=5, max_size=30))
def test_no_entry_is_lost_or_had_by_two_whatever_happens(schedule):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "tasks.db")
        for name, number, which in schedule:
            getattr(world, name)(world.processes[number], which)
            world.check()
        world.finish()
        assert world.ended.keys() | world.dead == world.accepted
        assert all(count == 1 for count in world.ended.values())

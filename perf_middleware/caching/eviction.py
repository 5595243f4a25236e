"""A map bounded by bytes and entries that keeps what is asked for again.

    get --> reads (the last READS_MAX) --+ noted by the next put
                                         v
    put --> TwoQueues: window and main, which decide who leaves <-- window -- Miniatures

A hit is one look-up and one append.  What it means for the order is worked out by the next `put`:
nothing has to leave before.  Where more than READS_MAX hits come between two puts, the older
are forgotten: nothing is scarce then.

Beside key and value an entry and its ghost take about 450 bytes (an OrderedDict's LRU: 180), the
miniatures of a cache 40 kB.  A hit takes 0.07 us, a put that evicts 1.5 us (0.3), twice that below
some hundred entries, where the miniatures see every request; `python -m benchmarks.eviction`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from perf_middleware.caching.miniatures import Miniatures
from perf_middleware.caching.two_queues import TwoQueues

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from perf_middleware.caching.two_queues import Entry

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

READS_MAX = 64  # what one put may have to note
# What shrinking leaves of the room at least: a cache of nothing sends every request to the app in
# its hardest moment, and 1 MiB of 64 decides no fight over memory.
ROOM_PART_MIN = 64


class BoundedCache(Generic[K, V]):
    """A map that holds at most `entries_max` entries of at most `bytes_max` bytes in all.

    An entry that is `held` leaves by `pop` and `clear` alone; it counts in bytes and not as one of
    `entries_max`.  It is for what leads to others and goes with the last of them.

    `shrink` takes room away for a time: what may be held is `room_bytes` then, and `bytes_max`
    again after `grow_back`.

    What leaves to make room is told to `on_evict(key, value)` once the operation is complete: it
    may call any method of the cache.  It is not told of what leaves by `pop` or `clear` or because
    the same key was put again.  What it raises, the caller of the operation gets once all are told.
    """

    def __init__(
        self,
        *,
        bytes_max: int,
        entries_max: int,
        on_evict: Callable[[K, V], None] | None = None,
    ) -> None:
        if bytes_max < 1 or entries_max < 1:
            raise ValueError(f"bytes_max and entries_max must be >= 1: {bytes_max}, {entries_max}")
        self.bytes_max = bytes_max
        self.room_bytes = bytes_max  # less after `shrink`, until `grow_back`
        self.entries_max = entries_max
        self.evictions = 0  # entries that left to make room, ever
        self._on_evict = on_evict
        self._miniatures = Miniatures(bytes_max=bytes_max, entries_max=entries_max)
        self._queues: TwoQueues[K, V] = TwoQueues(
            bytes_max=bytes_max,
            entries_max=entries_max,
            window_percent=self._miniatures.window_percent,
        )
        self._entries = self._queues.entries
        self._reads: deque[Entry[K, V]] = deque(maxlen=READS_MAX)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of all entries, exact."""
        return self._queues.size_bytes

    def keys(self) -> list[K]:
        """The keys now; a copy, so that the cache may change meanwhile."""
        return list(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which is thereby asked for once more, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._reads.append(entry)
        return entry.value

    def peek(self, key: K) -> V | None:
        """The value or None, without counting as asked for."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: K, value: V, size_bytes: int, *, held: bool = False) -> bool:
        """Insert or replace: True where the value is in.

        False: it is larger than the room, or it would drive out many smaller entries and was not
        asked for before.  The key has no entry then, not even an older one.  An entry that is
        replaced keeps its standing.  Raises ValueError for a negative size, and where of two
        entries under one key only one is `held`.
        """
        if size_bytes < 0:
            raise ValueError(f"a size is not negative: {size_bytes}")
        if self._reads:
            self._note_reads()
        queues = self._queues
        entry = self._entries.get(key)
        before = None
        if entry is not None:
            before = entry.value
            if (entry.queue is queues.held) is not held:
                raise ValueError(f"{key!r} is there, and {'not ' * held}held")
        elif not held:
            return self.add(key, value, size_bytes)
        if size_bytes > self.room_bytes:
            if entry is not None:
                queues.remove(entry)
                self._tell([entry])
            return False
        if entry is not None:
            lost = queues.replace(entry, value, size_bytes)
        else:
            lost = queues.hold(key, value, size_bytes)
        return self._settle(key, before, lost)

    def add(self, key: K, value: V, size_bytes: int) -> bool:
        """`put` a key that has no entry, with a size that is not negative."""
        if self._reads:
            self._note_reads()
        if size_bytes > self.room_bytes:
            return False
        # In a tuple, for the sample goes by the low bits: whole numbers are their own hash.
        hashed = hash((key,))
        if not hashed & self._miniatures.mask and self._fills_up():
            self._sample(hashed, size_bytes)
        queues = self._queues
        lost = queues.insert(key, hashed, value, size_bytes)
        if lost is None:
            return False
        if lost or queues.held.length:
            return self._settle(key, None, lost) and key in self._entries
        return True

    def _settle(self, key: K, before: V | None, lost: list[Entry[K, V]]) -> bool:
        """Tell of what left for `key`, under which there was `before`: whether it is still in."""
        queues = self._queues
        is_in = True
        try:
            if lost:
                self.evictions += len(lost)
                self._tell(lost)
        finally:
            # What is held may have gone with what led to it: only now is it known what it leaves.
            if queues.held.length and queues.size_bytes > self.room_bytes:
                is_in = False
                self._take_back(key, before)
        return is_in

    def _take_back(self, key: K, before: V | None) -> None:
        """Let what has no room beside what is held go again, and tell what was there `before`."""
        entry = self._entries[key]
        self._queues.remove(entry)
        if before is not None:
            entry.value = before
            self._tell([entry])

    def pop(self, key: K) -> V | None:
        """Take an entry out: its value, or None where there is none.

        One that was asked for is known when it is put again: what expires keeps its standing.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._reads:
            self._note_reads()  # no value outlives its entry among the reads
        queues = self._queues
        queues.remove(entry)
        if entry.queue is queues.main or (entry.hits and entry.queue is queues.window):
            queues.remember(entry.hashed)
        return entry.value

    def clear(self) -> Iterator[V]:
        """Take all entries out in one step, and forget what was asked for: their values.

        Each is let go as the next is taken: to free many takes its time.
        """
        self._reads.clear()
        taken = self._queues.clear()
        self._entries = self._queues.entries
        self._miniatures.clear()
        return _one_by_one(taken)

    def shrink(self, bytes_kept: int, *, entries: int) -> bool:
        """Let the least asked for go until `bytes_kept` are left: whether that is so.

        Of `entries` at most: False asks for another call.  What is left is the room from then on,
        so that nothing takes the place of what has gone.  What `on_evict` raises comes out, and
        the room is smaller all the same.
        """
        if self._reads:
            self._note_reads()
        queues = self._queues
        lost = queues.evict(bytes_kept, entries)
        self.evictions += len(lost)
        try:
            self._tell(lost)
        finally:
            least = max(1, self.bytes_max // ROOM_PART_MIN)
            self._set_room(min(self.room_bytes, max(least, queues.size_bytes)))
        return queues.size_bytes <= bytes_kept or not queues.length

    def grow_back(self) -> None:
        """Give back all the room that `shrink` has taken; from any thread."""
        self._set_room(self.bytes_max)

    def _set_room(self, room_bytes: int) -> None:
        # The miniatures go on with all the room: it comes back, and they would begin anew.
        self.room_bytes = room_bytes
        self._queues.resize(
            bytes_max=room_bytes,
            entries_max=self.entries_max,
            window_percent=self._queues.window_percent,
        )

    def _note_reads(self) -> None:
        read = self._queues.read
        held = self._queues.held
        mask = self._miniatures.mask
        is_sampled = self._fills_up()
        for entry in self._reads:
            read(entry)
            if is_sampled and not entry.hashed & mask and entry.queue is not held:
                self._sample(entry.hashed, entry.size_bytes)
                mask = self._miniatures.mask
        self._reads.clear()

    def _fills_up(self) -> bool:
        """Whether something may have to leave before long: until then no window is the better."""
        queues = self._queues
        return (
            queues.size_bytes >= self.room_bytes // 2 or len(self._entries) >= self.entries_max // 2
        )

    def _sample(self, hashed: int, size_bytes: int) -> None:
        miniatures = self._miniatures
        if miniatures.ask(hashed, size_bytes):
            miniatures.judge(self._queues.length)
        if miniatures.window_percent != self._queues.window_percent:
            self._queues.resize(
                bytes_max=self.room_bytes,
                entries_max=self.entries_max,
                window_percent=miniatures.window_percent,
            )

    def _tell(self, lost: list[Entry[K, V]]) -> None:
        on_evict = self._on_evict
        if on_evict is None:
            return
        failed: Exception | None = None
        for entry in lost:
            try:
                on_evict(entry.key, entry.value)
            except Exception as error:  # noqa: BLE001  (raised again below)
                failed = failed or error
        if failed is not None:
            raise failed


def _one_by_one(taken: dict[K, Entry[K, V]]) -> Iterator[V]:
    while taken:
        _, entry = taken.popitem()
        # The rings are cycles of references: broken here, so that no value waits for the collector.
        entry.older = entry.newer = entry.queue
        yield entry.value

"""Which entries a full cache lets go: S3-FIFO, weighed by bytes.

    put --> small (a tenth) --hit since--> main --not hit since--> out
              |                             ^ |
              not hit since                 | +-- hit since: back to the newest end
              v                             |
            out, its hash --> ghosts --put again

Most keys are asked for once.  They pass through the small queue and never cost the main one
anything; what is asked for again stays.  A hit only counts, it moves nothing.
Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

HITS_MAX = 3  # more would only make a former favourite slower to leave
SMALL_SHARE = 10  # the small queue holds one part in so many
STEPS_MAX = 32  # entries spared in the search of one victim: bounds what an insert may take


class _Entry(Generic[K, V]):
    """One entry and its neighbours in its queue."""

    __slots__ = ("hits", "key", "newer", "older", "queue", "size_bytes", "value")

    key: K
    value: V
    size_bytes: int
    hits: int  # since it was put or last spared, HITS_MAX at most
    queue: _Queue[K, V]
    older: _Entry[K, V]
    newer: _Entry[K, V]


class _Queue(_Entry[K, V]):
    """A ring of entries closed by the queue itself: `newer` is its oldest, `older` its newest."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.empty()

    def empty(self) -> None:
        self.older = self.newer = self
        self.size_bytes = 0
        self.entries = 0

    def append(self, entry: _Entry[K, V]) -> None:
        newest = self.older
        entry.older = newest
        entry.newer = self
        newest.newer = self.older = entry
        entry.queue = self
        self.size_bytes += entry.size_bytes
        self.entries += 1

    def remove(self, entry: _Entry[K, V]) -> None:
        older, newer = entry.older, entry.newer
        older.newer = newer
        newer.older = older
        self.size_bytes -= entry.size_bytes
        self.entries -= 1


class BoundedCache(Generic[K, V]):
    """A map that holds at most `entries_max` entries of at most `bytes_max` bytes in all.

    When it is full, what is asked for least leaves, as `on_evict(key, value)` is told after the
    operation is complete: it may call any method of the cache.  It is not told of what leaves by
    `pop`, `clear` or because the same key was put again.  What it raises, the caller of the
    operation gets, once all were told.
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
        self.entries_max = entries_max
        self.evictions = 0  # entries that left to make room
        self.rejected = 0  # entries that were not let in
        self._on_evict = on_evict
        self._entries: dict[K, _Entry[K, V]] = {}
        self._small: _Queue[K, V] = _Queue()
        self._main: _Queue[K, V] = _Queue()
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of all entries."""
        return self._small.size_bytes + self._main.size_bytes

    def keys(self) -> list[K]:
        """The keys now, in no order; a copy, so that the cache may change meanwhile."""
        return list(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which is thereby asked for once more, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.hits < HITS_MAX:
            entry.hits += 1
        return entry.value

    def peek(self, key: K) -> V | None:
        """The value or None, without counting as asked for."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def put(self, key: K, value: V, size_bytes: int) -> bool:
        """Insert or replace; False where it is not let in: then the key has no entry any more.

        An entry that is replaced keeps its standing.  Raises ValueError for a negative size.
        """
        if size_bytes < 0:
            raise ValueError(f"a size is not negative: {size_bytes}")
        entry = self._entries.get(key)
        if size_bytes > self.bytes_max:
            self.rejected += 1
            if entry is not None:
                self._tell([self._removed(entry)])
            return False
        if entry is not None:
            entry.value = value
            entry.queue.size_bytes += size_bytes - entry.size_bytes
            entry.size_bytes = size_bytes
            if self.size_bytes > self.bytes_max:
                self._tell(self._make_room(0, 0, spared=entry))
            return True
        lost = None
        if self.size_bytes + size_bytes > self.bytes_max or len(self) >= self.entries_max:
            lost = self._make_room(size_bytes, 1)
        entry = _Entry()
        entry.key = key
        entry.value = value
        entry.size_bytes = size_bytes
        entry.hits = 0
        self._entries[key] = entry
        known = self._ghosts.pop(hash(key), self) is None
        (self._main if known else self._small).append(entry)
        if lost is not None:
            self._tell(lost)
        return True

    def pop(self, key: K) -> V | None:
        """Take an entry out: its value, or None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else self._removed(entry).value

    def clear(self) -> None:
        """Take all entries out, and forget what was asked for."""
        # The rings are cycles of references: broken here, so that no value waits for the collector.
        for entry in self._entries.values():
            entry.older = entry.newer = entry.queue
        self._entries.clear()
        self._small.empty()
        self._main.empty()
        self._ghosts.clear()

    def shrink(self, share: float) -> int:
        """Evict that share of the bytes held, what is asked for least first: the bytes freed."""
        before = self.size_bytes
        keep = before - round(before * min(max(share, 0.0), 1.0))
        lost = self._make_room(self.bytes_max - keep, 0)
        freed = before - self.size_bytes
        self._tell(lost)
        return freed

    def _make_room(
        self, size_bytes: int, entries: int, spared: _Entry[K, V] | None = None
    ) -> list[_Entry[K, V]]:
        """Evict until so many bytes and entries fit beside what is left: what was evicted."""
        keep_bytes = self.bytes_max - size_bytes
        keep_entries = self.entries_max - entries
        small, main = self._small, self._main
        lost: list[_Entry[K, V]] = []
        while small.size_bytes + main.size_bytes > keep_bytes or len(self._entries) > keep_entries:
            victim = self._victim(spared)
            self._removed(victim)
            self.evictions += 1
            lost.append(victim)
        return lost

    def _victim(self, spared: _Entry[K, V] | None) -> _Entry[K, V]:
        small, main = self._small, self._main
        steps = STEPS_MAX
        while True:
            from_small = (
                small.size_bytes * SMALL_SHARE >= self.bytes_max
                or small.entries * SMALL_SHARE >= self.entries_max
                or not main.entries
            ) and small.entries
            entry = (small if from_small else main).newer
            if (entry.hits and steps > 0) or entry is spared:
                steps -= 1
                entry.queue.remove(entry)
                main.append(entry)
                if from_small:
                    entry.hits = 0
                elif entry.hits:
                    entry.hits -= 1
                continue
            if from_small:
                self._remember(entry.key)
            return entry

    def _remember(self, key: K) -> None:
        ghosts = self._ghosts
        ghosts[hash(key)] = None
        while len(ghosts) > max(self._main.entries, 16):
            ghosts.popitem(last=False)

    def _removed(self, entry: _Entry[K, V]) -> _Entry[K, V]:
        del self._entries[entry.key]
        entry.queue.remove(entry)
        return entry

    def _tell(self, lost: list[_Entry[K, V]]) -> None:
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

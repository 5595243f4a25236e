"""A window of recent entries before a main queue of proven ones: who leaves, for a given window.

             asked for since
    put --> window ---------> main --+-- asked for since: spared, back to its newest end
      |       |                      |
      |       | not asked for        +--> out
      |       +--> out, its hash --> ghosts (as many as entries)
      +-- its hash is among the ghosts: straight to main

With a window of one per cent this is S3-FIFO, whose window is kept in order of use: what is asked
for once passes through the window and costs the proven entries nothing, so scans and the long tail
of a Zipf distribution do no harm.  With a window of all the room it is LRU.

- A hit moves an entry in the window and only counts in main.
- What is held stands in a ring of its own: it takes bytes and no place, and never leaves.
- The queues are rings of linked entries: any entry leaves in one step, nothing dead is kept.
- One search for a victim spares SPARED_MAX entries at most, however many were asked for.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023; Einziger et al.,
"TinyLFU", ACM ToS 2017 (the window).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

HITS_MAX = 3  # more would only make a former favourite slower to leave
SPARED_MAX = 32  # with 8 the hit ratio on Zipf traces is 0.003 lower, with 128 no higher
GHOSTS_MIN = 16  # beside a cache of a few large entries
# What is larger than this part of the room must be asked for twice before it drives others out:
# one large answer that is never wanted again would cost as many small ones as it has bytes.
LARGE_PART = 16
ALL = 100  # per cent: a window of all the room


class Entry(Generic[K, V]):
    """One entry and its neighbours in its queue."""

    __slots__ = ("hashed", "hits", "key", "newer", "older", "queue", "size_bytes", "value")

    key: K
    hashed: int
    value: V
    size_bytes: int
    hits: int  # since it was put or last spared, HITS_MAX at most
    queue: Queue[K, V]
    older: Entry[K, V]
    newer: Entry[K, V]


class Queue(Entry[K, V]):
    """A ring of entries closed by the queue itself: `newer` is its oldest, `older` its newest."""

    __slots__ = ("length",)

    def __init__(self) -> None:
        self.empty()

    def empty(self) -> None:
        """Forget all entries."""
        self.older = self.newer = self
        self.size_bytes = 0
        self.length = 0

    def append(self, entry: Entry[K, V]) -> None:
        """Let `entry`, which is in no queue, be the newest."""
        newest = self.older
        entry.older = newest
        entry.newer = self
        newest.newer = self.older = entry
        entry.queue = self
        self.size_bytes += entry.size_bytes
        self.length += 1

    def remove(self, entry: Entry[K, V]) -> None:
        """Take `entry`, one of this queue, out of it."""
        older, newer = entry.older, entry.newer
        older.newer = newer
        newer.older = older
        self.size_bytes -= entry.size_bytes
        self.length -= 1

    def renew(self, entry: Entry[K, V]) -> None:
        """Let `entry`, one of this queue, be its newest."""
        newest = self.older
        if newest is not entry:
            older, newer = entry.older, entry.newer
            older.newer = newer
            newer.older = older
            entry.older = newest
            entry.newer = self
            newest.newer = self.older = entry


class TwoQueues(Generic[K, V]):
    """At most `entries_max` entries of at most `bytes_max` bytes in all, with those that are held.

    What is held counts in bytes alone: where it leaves no room, it may be over `bytes_max`.
    """

    __slots__ = (
        "bytes_max", "entries", "entries_max", "ghosts", "ghosts_max", "held", "main", "spared",
        "window", "window_bytes_max", "window_length_max", "window_percent",
    )  # fmt: skip

    def __init__(self, *, bytes_max: int, entries_max: int, window_percent: int) -> None:
        self.entries: dict[K, Entry[K, V]] = {}
        self.window: Queue[K, V] = Queue()
        self.main: Queue[K, V] = Queue()
        self.held: Queue[K, V] = Queue()
        self.ghosts: OrderedDict[int, None] = OrderedDict()
        self.ghosts_max = GHOSTS_MIN  # as many as entries when one was last evicted
        self.spared = 0  # entries looked at and kept, ever: what searching for victims costs
        self.resize(bytes_max=bytes_max, entries_max=entries_max, window_percent=window_percent)

    def resize(self, *, bytes_max: int, entries_max: int, window_percent: int) -> None:
        """Set the room and the window's part of it; what is over it leaves with the next insert."""
        self.bytes_max = bytes_max
        self.entries_max = entries_max
        self.window_percent = window_percent
        self.window_bytes_max = bytes_max * window_percent // ALL
        self.window_length_max = max(1, entries_max * window_percent // ALL)

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of all entries."""
        return self.window.size_bytes + self.main.size_bytes + self.held.size_bytes

    @property
    def length(self) -> int:
        """How many entries there are, without those that are held."""
        return self.window.length + self.main.length

    def read(self, entry: Entry[K, V]) -> None:
        """Note that `entry` was asked for."""
        if entry.hits < HITS_MAX:
            entry.hits += 1
        window = self.window
        if entry.queue is window:
            window.renew(entry)

    def insert(self, key: K, hashed: int, value: V, size_bytes: int) -> list[Entry[K, V]] | None:
        """Let a new key in: what left for it, or None where it is not worth that.

        It must fit into the room: `size_bytes` is `bytes_max` at most.
        """
        # Written out, as `_evicted` is: each put into a full cache runs it, up to some hundred
        # entries twice.
        window, main, ghosts = self.window, self.main, self.ghosts
        is_known = hashed in ghosts
        over_bytes = (
            window.size_bytes + main.size_bytes + self.held.size_bytes + size_bytes - self.bytes_max
        )
        length = window.length + main.length
        if over_bytes > 0 or length >= self.entries_max:
            if (
                over_bytes > 0
                and size_bytes * LARGE_PART > self.bytes_max
                and not is_known
                and self.window_percent != ALL
            ):
                self.remember(hashed)
                return None
            lost = self._evict(over_bytes, length + 1 - self.entries_max, length)
        else:
            lost = []
        if is_known:
            ghosts.pop(hashed, None)
            if self.window_percent != ALL:
                window = main
        # window.append, written out
        entry: Entry[K, V] = Entry()
        entry.key = key
        entry.hashed = hashed
        entry.value = value
        entry.size_bytes = size_bytes
        entry.hits = 0
        entry.queue = window
        entry.newer = window
        entry.older = newest = window.older
        newest.newer = window.older = entry
        window.size_bytes += size_bytes
        window.length += 1
        self.entries[key] = entry
        return lost

    def hold(self, key: K, value: V, size_bytes: int) -> list[Entry[K, V]]:
        """Let a new key in that only `remove` takes out: what left for it."""
        lost = self.make_room(size_bytes, 0)
        entry: Entry[K, V] = Entry()
        entry.key = key
        entry.hashed = 0
        entry.value = value
        entry.size_bytes = size_bytes
        entry.hits = 0
        self.held.append(entry)
        self.entries[key] = entry
        return lost

    def replace(self, entry: Entry[K, V], value: V, size_bytes: int) -> list[Entry[K, V]]:
        """Give `entry` another value and size: what left for it.  It must fit into the room."""
        entry.value = value
        more_bytes = size_bytes - entry.size_bytes
        if more_bytes <= 0 or self.size_bytes + more_bytes <= self.bytes_max:
            entry.queue.size_bytes += more_bytes
            entry.size_bytes = size_bytes
            return []
        queue = entry.queue
        queue.remove(entry)  # so that it is not itself what leaves
        del self.entries[entry.key]
        lost = self.make_room(size_bytes, 0 if queue is self.held else 1)
        entry.size_bytes = size_bytes
        self.entries[entry.key] = entry
        queue.append(entry)
        return lost

    def remove(self, entry: Entry[K, V]) -> None:
        """Take `entry` out."""
        del self.entries[entry.key]
        entry.queue.remove(entry)

    def make_room(self, size_bytes: int, entries: int) -> list[Entry[K, V]]:
        """Evict until so many bytes and entries fit beside what is left: what was evicted.

        It may be all but what is held, without there being room then.
        """
        length = self.length
        return self._evict(
            self.size_bytes + size_bytes - self.bytes_max,
            length + entries - self.entries_max,
            length,
        )

    def _evict(self, over_bytes: int, over: int, length: int) -> list[Entry[K, V]]:
        """Evict so many bytes and entries at least, of the `length` that there are."""
        lost: list[Entry[K, V]] = []
        while length and (over_bytes > 0 or over > 0):
            entry = self._evicted()
            lost.append(entry)
            over_bytes -= entry.size_bytes
            over -= 1
            length -= 1
        return lost

    def evict(self, bytes_kept: int, entries: int) -> list[Entry[K, V]]:
        """Evict until so many bytes are left, of so many entries at most: what was evicted."""
        lost: list[Entry[K, V]] = []
        while len(lost) < entries and self.length and self.size_bytes > bytes_kept:
            lost.append(self._evicted())
        return lost

    def remember(self, hashed: int) -> None:
        """Keep a hash among the ghosts."""
        self.ghosts[hashed] = None
        if len(self.ghosts) > self.ghosts_max:
            self._forget_ghosts()

    def _forget_ghosts(self) -> None:
        # Never more than two at once: where there are fewer entries now, they go step by step.
        ghosts = self.ghosts
        ghosts.popitem(last=False)
        if len(ghosts) > self.ghosts_max:
            ghosts.popitem(last=False)

    def clear(self) -> dict[K, Entry[K, V]]:
        """Forget all entries and ghosts, in one step: the entries that there were.

        They are still linked to each other.
        """
        entries, self.entries = self.entries, {}
        self.window.empty()
        self.main.empty()
        self.held.empty()
        self.ghosts.clear()
        self.ghosts_max = GHOSTS_MIN
        return entries

    def _evicted(self) -> Entry[K, V]:
        """Take the entry out that is worth least; there is one at least that is not held."""
        window, main = self.window, self.main
        is_lru = self.window_percent == ALL
        left = SPARED_MAX
        length = window.length + main.length
        self.ghosts_max = max(GHOSTS_MIN, length)
        while True:
            if main.length and (
                is_lru  # what was proven under a smaller window leaves first
                or not window.length
                or (
                    window.size_bytes < self.window_bytes_max
                    and window.length < self.window_length_max
                )
            ):
                queue = main
                entry = main.newer
                if not entry.hits or not left:
                    break
                entry.hits -= 1
                main.renew(entry)
            else:
                queue = window
                entry = window.newer
                if not entry.hits or is_lru or not left:
                    ghosts = self.ghosts
                    ghosts[entry.hashed] = None
                    if len(ghosts) > self.ghosts_max:
                        self._forget_ghosts()
                    break
                entry.hits = 0
                window.remove(entry)
                main.append(entry)
            left -= 1
            self.spared += 1
        del self.entries[entry.key]
        # queue.remove(entry), of its oldest
        queue.newer = newer = entry.newer
        newer.older = queue
        queue.size_bytes -= entry.size_bytes
        queue.length -= 1
        return entry

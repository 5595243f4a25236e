"""Values in this process's memory, found by key and by tag.

A look-up is one step in a dict, takes no lock and may come from any thread; it is noted in a
bounded list that the next `keep` reads.  What changes the store does so under a lock.  What leaves
is let go of after that, for its own `__del__` may call us.
"""

from __future__ import annotations

from collections import deque
from threading import RLock
from time import sleep
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from perf_middleware.caching.eviction import READS_MAX, BoundedCache
from perf_middleware.caching.expiry import Expiry
from perf_middleware.caching.values.kept import ENTRY_BYTES, NEVER_US, Kept, Terms
from perf_middleware.caching.values.patterns import matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perf_middleware.clock import Clock

EXPIRED_AT_ONCE_MAX: Final = 32  # at each `keep`: more than come in, and no stall
AT_ONCE: Final = 500  # keys of a purge between two chances for the event loop, about 1 ms


class MemoryStore:
    """At most `bytes_max` bytes and `entries_max` values; the least asked for go first."""

    def __init__(self, *, bytes_max: int, entries_max: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = RLock()
        self._kept: dict[str, Kept] = {}
        self._reads: deque[str] = deque(maxlen=READS_MAX)
        self._gone: list[Kept] = []  # what left since the lock was taken
        self._by_tag: dict[str, set[str]] = {}
        self._expiry: Expiry[str] = Expiry(now_us=clock())
        self._order: BoundedCache[str, Kept] = BoundedCache(
            bytes_max=bytes_max, entries_max=entries_max, on_evict=self._forget
        )
        # The hot path, from any thread: look up, judge the times, note that it was asked for.
        self.look: Callable[[str], Kept | None] = self._kept.get
        self.note_read: Callable[[str], None] = self._reads.append

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def memory(self) -> MemoryStore:
        return self

    @property
    def size_bytes(self) -> int:
        """What all values, their keys and their entries take, as far as it is known."""
        return self._order.size_bytes

    @property
    def bytes_max(self) -> int:
        return self._order.bytes_max

    @property
    def room_bytes(self) -> int:
        """What may be held now: `bytes_max`, or less after `shrink`."""
        return self._order.room_bytes

    @property
    def entries_max(self) -> int:
        return self._order.entries_max

    @property
    def evictions(self) -> int:
        """Values that left to make room, ever."""
        return self._order.evictions

    # --- from any thread, without waiting ---------------------------------------------------------

    def find(self, key: str) -> Kept | None:
        """What is under `key`, fresh or in its stale time; counts as asked for."""
        kept = self._kept.get(key)
        if kept is None or self._clock() >= kept.ends_us:
            return None
        self._reads.append(key)
        return kept

    def keep(self, key: str, value: Any, terms: Terms) -> Kept | None:
        """Keep `value`, in place of what was there: as what; None where it found no room."""
        now_us = self._clock()
        kept = Kept(value, terms, now_us=now_us)
        with self._lock:
            self._expire(now_us)
            found_room = self._put(key, kept)
            gone = self._take_gone()
        del gone  # here, outside of the lock
        return kept if found_room else None

    def forget(self, keys: Iterable[str]) -> int:
        """Let go of `keys`: how many there were."""
        with self._lock:
            for key in keys:
                self._drop(key)
            gone = self._take_gone()
        return len(gone)

    def tagged(self, tags: Iterable[str]) -> list[str]:
        """The keys that have any of `tags`."""
        with self._lock:
            return list({key for tag in tags for key in self._by_tag.get(tag, ())})

    def keys(self, pattern: str | None = None) -> list[str]:
        """The keys that match `pattern`; None: all."""
        with self._lock:
            listed = list(self._kept)
        return listed if pattern is None else list(filter(matcher(pattern), listed))

    def add(self, key: str, amount: int, ttl_us: int | None) -> int:
        """Add to the whole number under `key`, see ValueStore.increase."""
        now_us = self._clock()
        with self._lock:
            before = self._kept.get(key)
            if before is None or now_us >= before.fresh_until_us:
                kept = Kept(amount, Terms(ttl_us=ttl_us), now_us=now_us)
            else:
                if type(before.held) is not int:
                    raise TypeError(f"{key!r} holds no whole number")
                kept = Kept(before.held + amount, Terms(ttl_us=None, tags=before.tags), now_us=0)
                kept.fresh_until_us = kept.early_from_us = before.fresh_until_us
                kept.ends_us = before.ends_us
            self._put(key, kept)
            gone = self._take_gone()
        del gone
        return int(kept.held)

    def resize(self, *, bytes_max: int, entries_max: int) -> None:
        """Another room, all of it; what does not fit into it leaves."""
        with self._lock:
            before = dict(self._kept)
            self._forget_all()
            self._order = BoundedCache(
                bytes_max=bytes_max, entries_max=entries_max, on_evict=self._forget
            )
            for key, kept in before.items():
                self._put(key, kept)
            gone = self._take_gone()
        del gone

    def shrink(self, share: float) -> int:
        """Let go of `share` of the bytes, the least asked for first: how many bytes.

        What is left is the room until `grow_back`.  The lock is given away again and again: whoever
        waits for it waits for one slice.
        """
        before_bytes = self.size_bytes
        kept_bytes = int(before_bytes * (1 - share))
        is_done = False
        while not is_done:
            with self._lock:
                self._note_reads()
                is_done = self._order.shrink(kept_bytes, entries=AT_ONCE)
                gone = self._take_gone()
            del gone
            sleep(0)  # a lock alone is taken again before another thread can
        return max(0, before_bytes - self.size_bytes)

    def grow_back(self) -> None:
        """Give back all the room that `shrink` has taken."""
        with self._lock:
            self._order.grow_back()

    def expire(self) -> None:
        """Let go of what has expired, as much as one `keep` would."""
        with self._lock:
            self._expire(self._clock())
            gone = self._take_gone()
        del gone

    # --- the port -----------------------------------------------------------------------------

    def heard(self) -> None:
        return None

    async def get(self, key: str) -> Kept | None:
        return self.find(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Kept]:
        found = {key: self.find(key) for key in keys}
        return {key: kept for key, kept in found.items() if kept is not None}

    async def put(self, key: str, value: Any, terms: Terms) -> bool:
        return self.keep(key, value, terms) is not None

    async def put_many(self, values: Mapping[str, Any], terms: Terms) -> int:
        return sum(self.keep(key, values[key], terms) is not None for key in values)

    async def exists(self, key: str) -> bool:
        kept = self._kept.get(key)
        return kept is not None and self._clock() < kept.fresh_until_us

    async def drop(self, keys: Sequence[str]) -> int:
        return self.forget(keys)

    async def purge(self, tags: Sequence[str]) -> int:
        return await self._forget_in_slices(self.tagged(tags))

    async def clear(self, pattern: str | None) -> int:
        return await self._forget_in_slices(self.keys(pattern))

    async def increase(self, key: str, amount: int, *, ttl_us: int | None) -> int:
        return self.add(key, amount, ttl_us)

    async def _forget_in_slices(self, keys: list[str]) -> int:
        """So that no purge holds the event loop up; what is begun is finished."""
        count = 0
        with anyio.CancelScope(shield=True):
            for start in range(0, len(keys), AT_ONCE):
                if start:
                    await anyio.lowlevel.checkpoint()
                count += self.forget(keys[start : start + AT_ONCE])
        return count

    # --- under the lock -------------------------------------------------------------------------

    def _take_gone(self) -> list[Kept]:
        gone, self._gone = self._gone, []
        return gone

    def _note_reads(self) -> None:
        reads = self._reads
        for _ in range(len(reads)):  # other threads go on adding to it
            self._order.get(reads.popleft())

    def _put(self, key: str, kept: Kept) -> bool:
        self._note_reads()
        before = self._kept.get(key)
        if before is not None:
            self._gone.append(before)
            self._unlink(key, before)
        self._kept[key] = kept
        for tag in kept.tags:
            self._by_tag.setdefault(tag, set()).add(key)
        if not self._order.put(key, kept, kept.size_bytes + len(key) + ENTRY_BYTES):
            self._forget(key, kept)
            return False
        if kept.ends_us < NEVER_US:
            self._expiry.schedule(key, kept.ends_us)
        else:
            self._expiry.cancel(key)
        return True

    def _drop(self, key: str) -> None:
        kept = self._order.pop(key)
        if kept is not None:
            self._forget(key, kept)

    def _forget(self, key: str, kept: Kept) -> None:
        if self._kept.get(key) is kept:
            del self._kept[key]
            self._expiry.cancel(key)
        self._gone.append(kept)
        self._unlink(key, kept)

    def _unlink(self, key: str, kept: Kept) -> None:
        for tag in kept.tags:
            keys = self._by_tag.get(tag)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_tag[tag]

    def _expire(self, now_us: int) -> None:
        for key in self._expiry.due(now_us, EXPIRED_AT_ONCE_MAX):
            self._drop(key)

    def _forget_all(self) -> None:
        self._kept.clear()
        self._by_tag.clear()
        self._expiry.clear()
        self._reads.clear()

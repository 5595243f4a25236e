"""A map that keeps what was used last, bounded by entries and bytes.

An OrderedDict in the order of use behind one lock: a look-up moves its entry to the end, room is
made at the front.  Any thread may call anything at any time.  The lock is reentrant and is never
held while code of the app runs that was handed in (`make`, `size_of`, `on_evict`), and a value that
leaves dies after it was released: a finalizer may use the cache.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from threading import RLock
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, overload

from perf_middleware.clock import monotonic_us
from perf_middleware.memory_watch.structures.figures import StructureFigures, structure_families
from perf_middleware.memory_watch.structures.stores.making import MISSING, Makings, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family

logger = logging.getLogger("perf_middleware.memory_watch")

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
D = TypeVar("D")
_Entry: TypeAlias = "tuple[V, int, int]"  # the value, its bytes, until when, in microseconds

_VALUE: Final = 0
_BYTES: Final = 1
_UNTIL: Final = 2
US_PER_S: Final = 1_000_000
FOREVER_US: Final = 0


class LRUCache(Generic[K, V]):
    """Holds at most `entries_max` entries, and of at most `bytes_max` bytes where that is given.

    A value's bytes are what `size_of(value)` says when it is put; without it none are counted, so
    `bytes_max` asks for it.  Nothing is counted for keys and the cache's own entries (some 200
    bytes each).  A value that is larger than `bytes_max` alone is not kept.

    With `ttl_s` an entry lives that long from when it was put; one that is over is dropped when it
    is asked for, or leaves in its turn.

    `on_evict(key, value)` is told of what leaves to make room, because its time is over or by
    `shrink`; not of what is taken out or replaced.  What it raises is counted, and logged once.
    """

    def __init__(
        self,
        entries_max: int,
        *,
        bytes_max: int | None = None,
        size_of: Callable[[V], int] | None = None,
        ttl_s: float | None = None,
        on_evict: Callable[[K, V], object] | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        if entries_max < 1 or (bytes_max is not None and bytes_max < 1):
            raise ValueError(f"entries_max and bytes_max must be >= 1: {entries_max}, {bytes_max}")
        if bytes_max is not None and size_of is None:
            raise ValueError("bytes_max needs size_of: what a value takes, such as len for bytes")
        if ttl_s is not None and ttl_s <= 0:
            raise ValueError(f"ttl_s must be > 0: {ttl_s}")
        self.entries_max = entries_max
        self.bytes_max = bytes_max
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.observer_failures = 0
        self._size_of = size_of
        self._ttl_us = None if ttl_s is None else round(ttl_s * US_PER_S)
        self._on_evict = on_evict
        self._clock = clock
        self._size_bytes = 0
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        # Reentrant: a collection of garbage may run a finalizer that comes back in the middle of a
        # step.  Each step changes entries and bytes by what it did itself, so both stay right.
        self._lock = RLock()
        self._makings: Makings[K, V] = Makings(self._lock)

    # --- the map ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Whether it would be found now; does not count as used."""
        with self._lock:
            entry = self._entries.get(key)
            return entry is not None and not self._is_over(entry)

    def __iter__(self) -> Iterator[K]:
        """The keys of this moment, least recently used first: the cache may change meanwhile."""
        return iter(self.keys())

    def keys(self) -> list[K]:
        with self._lock:
            return list(self._entries)

    def items(self) -> list[tuple[K, V]]:
        """Keys and values of this moment, least recently used first; none counts as used."""
        with self._lock:
            return [(key, entry[_VALUE]) for key, entry in self._entries.items()]

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The value, which is thereby used once more, or `default`."""
        entry = self._use(key)
        if entry is not None:
            return entry[_VALUE]
        self._miss(key)
        return default

    def peek(self, key: K, default: D | None = None) -> V | D | None:
        """The value or `default`, without counting as used."""
        with self._lock:
            entry = self._entries.get(key)
            return default if entry is None or self._is_over(entry) else entry[_VALUE]

    def __getitem__(self, key: K) -> V:
        entry = self._use(key)
        if entry is not None:
            return entry[_VALUE]
        self._miss(key)
        raise KeyError(key)

    def put(self, key: K, value: V) -> bool:
        """Insert or replace: True where it is kept.  False: it alone is larger than `bytes_max`;
        the key has no entry then, not even an older one.
        """
        size_bytes = self._weigh(value)
        with self._lock:
            self._makings.overtake_locked(key)
            # Held until the lock is released: the last reference to the old value may be this.
            before = self._entries.get(key)
            lost = self._put_locked(key, value, size_bytes)
        self._tell(lost)
        del before
        return self.bytes_max is None or size_bytes <= self.bytes_max

    def __setitem__(self, key: K, value: V) -> None:
        self.put(key, value)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value, or what `make()` gives, which is kept.

        Threads that ask for one key meanwhile wait for one making.  What is put, popped or cleared
        during it is newer: what was made is then handed out and not kept.  Raises what `make`
        raises, in all who waited for it; and RuntimeError where `make` asks for its own key.
        """
        entry = self._use(key)
        if entry is not None:
            return entry[_VALUE]
        lost: list[tuple[K, V]] = []
        sizes: list[int] = []

        def weighed() -> V:
            value = make()
            sizes.append(self._weigh(value))
            return value

        def keep_locked(value: V) -> V:
            lost.extend(self._put_locked(key, value, sizes[-1]))
            return value

        try:
            return self._makings.get_or_make(
                key,
                look_up_locked=lambda: self._look_up_locked(key, lost),
                make=weighed,
                keep_locked=keep_locked,
            )
        finally:
            self._tell(lost)

    def pop(self, key: K, default: D | None = None) -> V | D | None:
        """Take an entry out: its value, or `default` where there is none."""
        with self._lock:
            self._makings.overtake_locked(key)
            entry = self._remove_locked(key)
            return default if entry is None or self._is_over(entry) else entry[_VALUE]

    def __delitem__(self, key: K) -> None:
        with self._lock:
            self._makings.overtake_locked(key)
            entry = self._remove_locked(key)
        if entry is None:
            raise KeyError(key)

    def clear(self) -> None:
        """Take everything out."""
        with self._lock:
            self._makings.overtake_all_locked()
            before, self._entries = self._entries, OrderedDict()
            self._size_bytes -= sum(entry[_BYTES] for entry in before.values())
        before.clear()

    # --- memory ----------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """What `size_of` said of all values that are held; 0 without it."""
        return self._size_bytes

    def shrink(self, share: float) -> int:
        """Let go of `share` (0 to 1) of the bytes, of the entries where no bytes are counted.

        What is over goes first, then what was used least recently.  Returns the bytes that
        `size_of` said of them: 0 without it.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is from 0 to 1: {share}")
        lost: list[tuple[K, V]] = []
        with self._lock:
            before_bytes = self._size_bytes
            keep_entries, keep_bytes = round(len(self) * (1 - share)), before_bytes * (1 - share)
            if self._ttl_us is not None:
                for key in [key for key, entry in self._entries.items() if self._is_over(entry)]:
                    entry = self._remove_locked(key)
                    if entry is not None:
                        lost.append((key, entry[_VALUE]))
            is_weighed = self._size_of is not None and before_bytes > 0
            while self._entries and (
                self._size_bytes > keep_bytes if is_weighed else len(self) > keep_entries
            ):
                lost.append(self._pop_oldest_locked())
            self.evictions += len(lost)
            freed_bytes = before_bytes - self._size_bytes
        self._tell(lost)
        return freed_bytes

    def figures(self) -> StructureFigures:
        """What it holds and has counted."""
        return StructureFigures(
            kind="lru", entries=len(self),
            size_bytes=None if self._size_of is None else self._size_bytes,
            hits=self.hits, misses=self.misses, evictions=self.evictions,
        )  # fmt: skip

    def families(self, name: str) -> Iterable[Family]:
        """The figures of this cache alone; of several together: `structure_families`."""
        return structure_families({name: self})

    def reset_counts(self) -> None:
        """Every count back to zero; what is held stays."""
        self.hits = self.misses = self.evictions = self.observer_failures = 0

    # --- steps -----------------------------------------------------------------------------------

    def _weigh(self, value: V) -> int:
        if self._size_of is None:
            return 0
        size_bytes = self._size_of(value)
        if not size_bytes >= 0:  # true for nan as well, which no sum would ever lose again
            raise ValueError(f"a size is a number and not negative: {size_bytes}")
        return size_bytes

    def _is_over(self, entry: _Entry[V]) -> bool:
        return self._ttl_us is not None and entry[_UNTIL] <= self._clock()

    def _use(self, key: K) -> _Entry[V] | None:
        """The entry that is there, as the one used last; a miss is not counted here."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (self._ttl_us is not None and self._is_over(entry)):
                return None
            self._entries.move_to_end(key)
            self.hits += 1
            return entry

    def _miss(self, key: K) -> None:
        lost: list[tuple[K, V]] = []
        with self._lock:
            self._miss_locked(key, lost)
        self._tell(lost)

    def _look_up_locked(self, key: K, lost: list[tuple[K, V]]) -> V | Missing:
        entry = self._use(key)
        if entry is not None:
            return entry[_VALUE]
        self._miss_locked(key, lost)
        return MISSING

    def _miss_locked(self, key: K, lost: list[tuple[K, V]]) -> None:
        """Count it; what is over leaves."""
        entry = self._entries.get(key)
        self.misses += 1
        if entry is not None and self._is_over(entry):
            self._remove_locked(key)
            self.evictions += 1
            lost.append((key, entry[_VALUE]))

    def _put_locked(self, key: K, value: V, size_bytes: int) -> list[tuple[K, V]]:
        """What has left to make room."""
        until_us = FOREVER_US if self._ttl_us is None else self._clock() + self._ttl_us
        entry = (value, size_bytes, until_us)
        self._remove_locked(key)
        if self.bytes_max is not None and size_bytes > self.bytes_max:
            return []
        while self._entries.setdefault(key, entry) is not entry:
            self._remove_locked(key)  # a finalizer has put it meanwhile: its bytes count
        self._size_bytes += size_bytes
        lost = []
        while len(self._entries) > self.entries_max or (
            self.bytes_max is not None and self._size_bytes > self.bytes_max
        ):
            lost.append(self._pop_oldest_locked())
        self.evictions += len(lost)
        return lost

    def _pop_oldest_locked(self) -> tuple[K, V]:
        key, entry = self._entries.popitem(last=False)
        self._size_bytes -= entry[_BYTES]
        return key, entry[_VALUE]

    def _remove_locked(self, key: K) -> _Entry[V] | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size_bytes -= entry[_BYTES]
        return entry

    def _tell(self, lost: list[tuple[K, V]]) -> None:
        if self._on_evict is None:
            return
        for key, value in lost:
            try:
                self._on_evict(key, value)
            except Exception:
                self.observer_failures += 1
                if self.observer_failures == 1:
                    logger.exception("on_evict of an LRUCache failed; further failures are counted")

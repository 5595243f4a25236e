"""One object per key, for as long as somebody else holds it.

A `weakref.WeakValueDictionary`, which takes an entry out only while the reference in it is dead: a
value that was made anew while the old one was dying stays.  Around it a lock for what takes more
than one step, and one making at a time for each key.  The dictionary's own callbacks, which a dying
value runs anywhere, take no lock.
"""

from __future__ import annotations

import weakref
from threading import RLock
from typing import TYPE_CHECKING, Generic, TypeVar

from perf_middleware.memory_watch.structures.figures import StructureFigures, structure_families
from perf_middleware.memory_watch.structures.stores.making import MISSING, Makings, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from perf_middleware.families import Family

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class WeakCache(Generic[K, V]):
    """Values that are kept only while they are in use elsewhere; any thread may call anything.

    It bounds nothing, for it keeps nothing alive: an entry goes with its value.  A key must not
    refer to its value, or neither ever goes.

    A value whose class has a `__del__` can still be found while that runs (CPython clears weak
    references after it): clean up with `weakref.finalize` instead.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self._values: weakref.WeakValueDictionary[K, V] = weakref.WeakValueDictionary()
        self._lock = RLock()  # reentrant: a finalizer may come back in the middle of a step
        self._makings: Makings[K, V] = Makings(self._lock)

    def __len__(self) -> int:
        """How many values live."""
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def keys(self) -> list[K]:
        """The keys whose values live at this moment."""
        with self._lock:
            return [key for key, _ in self._values.items()]

    def get(self, key: K) -> V | None:
        """The value, or None where nobody holds one."""
        with self._lock:
            value = self._look_up_locked(key)
        return None if isinstance(value, Missing) else value

    def put(self, key: K, value: V) -> None:
        """Insert or replace.  Raises TypeError for what cannot be weakly referenced."""
        check_referencable(value)
        with self._lock:
            self._makings.overtake_locked(key)
            self._values[key] = value

    def intern(self, key: K, value: V) -> V:
        """The one object under `key`: that which is there, or else `value` from now on.

        Raises TypeError for what cannot be weakly referenced.
        """
        check_referencable(value)
        with self._lock:
            found = self._look_up_locked(key)
            if not isinstance(found, Missing):
                return found
            self._makings.overtake_locked(key)
            self._values[key] = value
        return value

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value, or what `make()` gives; threads that ask meanwhile wait for one making.

        Raises what `make` raises, TypeError for a value that cannot be weakly referenced, and
        RuntimeError where `make` asks for its own key.
        """
        value = self._values.get(key)
        if value is not None:
            with self._lock:
                self.hits += 1
            return value

        def checked() -> V:
            value = make()
            check_referencable(value)
            return value

        def keep_locked(value: V) -> V:
            self._values[key] = value
            return value

        return self._makings.get_or_make(
            key,
            look_up_locked=lambda: self._look_up_locked(key),
            make=checked,
            keep_locked=keep_locked,
        )

    def pop(self, key: K) -> V | None:
        """Forget the value, whoever holds it; returns it, or None."""
        with self._lock:
            self._makings.overtake_locked(key)
            return self._values.pop(key, None)

    def clear(self) -> None:
        """Forget all of them; those who hold one keep it."""
        with self._lock:
            self._makings.overtake_all_locked()
            self._values.clear()

    def figures(self) -> StructureFigures:
        """What lives and what was counted."""
        return StructureFigures(
            kind="weak", entries=len(self), hits=self.hits, misses=self.misses
        )  # fmt: skip

    def families(self, name: str) -> Iterable[Family]:
        """The figures of this cache alone; of several together: `structure_families`."""
        return structure_families({name: self})

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.hits = self.misses = 0

    def _look_up_locked(self, key: K) -> V | Missing:
        value = self._values.get(key)
        if value is None:  # never a value: None cannot be weakly referenced
            self.misses += 1
            return MISSING
        self.hits += 1
        return value


def check_referencable(value: object) -> None:
    """Raises TypeError, with what to do, for a value that cannot be weakly referenced."""
    try:
        weakref.ref(value)
    except TypeError as exc:
        raise TypeError(
            f"a {type(value).__name__} cannot be weakly referenced: int, str, bytes, tuple, list "
            "and dict cannot, and a class with __slots__ only with '__weakref__' among them "
            "(weakref_slot=True of a dataclass)"
        ) from exc

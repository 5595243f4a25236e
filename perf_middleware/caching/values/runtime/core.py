"""What the decorators and the app's own calls share: the store, the open runs, the figures.

Whatever forgets values spoils the runs in progress first: what was begun before is not kept after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.caching.values.classes import Classes
from perf_middleware.caching.values.decorators.flights import Flights
from perf_middleware.caching.values.figures import ValueFigures
from perf_middleware.caching.values.keys import Texts
from perf_middleware.caching.values.patterns import matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perf_middleware.caching.values.kept import Kept
    from perf_middleware.caching.values.stores import ValueStore
    from perf_middleware.clock import Clock
    from perf_middleware.families import Family


class Core:
    """The inside of one ValueCache."""

    def __init__(
        self,
        store: ValueStore,
        *,
        collapse_wait_s: float,
        waiting_max: int,
        enabled: bool,
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self.store = store
        self.memory = store.memory
        self.has_distance = store is not store.memory  # some of it is outside of this process
        self.collapse_wait_s = collapse_wait_s
        self.enabled = enabled
        self.clock = clock
        self.draw = draw
        self.texts = Texts()
        self.classes = Classes()
        self.flights = Flights(waiting_max=waiting_max)
        self.figures = ValueFigures()
        self.is_overloaded: Callable[[], bool] | None = None
        self.tell_soon: Callable[[Any], object] = _to_nobody
        self._names: dict[str, int] = {}  # how many functions go by each name
        self._evictions_before = 0  # the last reset of the counts

    def share(self, store: ValueStore) -> None:
        """From now on keep values in `store` too, whose memory is the one that there is."""
        self.store = store
        self.has_distance = True

    def look(self, key: str) -> Kept | None:
        """What is in memory under `key`, whatever its age."""
        return self.memory.look(key) if self.memory is not None else None

    def is_over(self, kept: Kept) -> bool:
        return self.clock() >= kept.fresh_until_us

    def claim_name(
        self, function: Callable[..., Any], *, namespace: str | None, name: str | None
    ) -> str:
        """The name of a function in keys and figures, no other's of this cache.

        Raises ValueError for a `name` that is given and taken; what a function is called by itself
        gets a number: closures of one function are as many functions.
        """
        own = name
        if own is None:
            module = getattr(function, "__module__", None) or "?"
            own = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
        full = own if namespace is None else f"{namespace}:{own}"
        if not full.strip() or "*" in full:
            raise ValueError(f"a name must not be blank nor contain *, as {full!r} does")
        count = self._names[full] = self._names.get(full, 0) + 1
        if count == 1:
            return full
        if name is not None:
            raise ValueError(f"another function is cached as {full!r}: give this one its own name")
        return f"{full}#{count}"

    # --- to forget --------------------------------------------------------------------------------

    async def drop(self, keys: Sequence[str]) -> int:
        self.flights.spoil(keys=keys)
        return self._invalidated(await self.store.drop(keys))

    async def purge(self, tags: Sequence[str]) -> int:
        self.flights.spoil(tags=tags)
        return self._invalidated(await self.store.purge(tags))

    async def clear(self, pattern: str | None) -> int:
        """Forget what matches; None: everything."""
        self.flights.spoil_matching(_any if pattern is None else matcher(pattern))
        return self._invalidated(await self.store.clear(pattern))

    def forget(self, keys: Sequence[str]) -> int:
        """As `drop`, in this process's memory, without waiting; other processes are told soon."""
        self.flights.spoil(keys=keys)
        self.tell_soon(("keys", tuple(keys)))
        return self._forgotten(keys)

    def forget_tagged(self, tags: Sequence[str]) -> int:
        """As `purge`, in the same way."""
        self.flights.spoil(tags=tags)
        self.tell_soon(("tags", tuple(tags)))
        return self._forgotten(self.memory.tagged(tags)) if self.memory is not None else 0

    def forget_matching(self, pattern: str | None) -> int:
        """As `clear`, in the same way."""
        self.tell_soon(("pattern", pattern))
        self.flights.spoil_matching(_any if pattern is None else matcher(pattern))
        return self._forgotten(self.memory.keys(pattern)) if self.memory is not None else 0

    def _forgotten(self, keys: Sequence[str]) -> int:
        return self._invalidated(self.memory.forget(keys) if self.memory is not None else 0)

    def _invalidated(self, count: int) -> int:
        self.figures.invalidated += count
        return count

    # --- what operators see -----------------------------------------------------------------------

    def families(self) -> Iterator[Family]:
        """The figures for /metrics; what has expired is let go of first."""
        return self.figures.families(**self._sizes())

    def reset_counts(self) -> None:
        """Every count back to zero; what is kept stays."""
        self.figures.reset()
        self._evictions_before = self.memory.evictions if self.memory is not None else 0

    def status(self) -> dict[str, Any]:
        """The totals and the size of the memory, JSON-able."""
        sizes = self._sizes()
        return self.figures.totals() | {
            "entries": sizes["entries"],
            "bytes": sizes["size_bytes"],
            "bytes_max": sizes["bytes_max"],
            "evictions": sizes["evictions"],
        }

    def _sizes(self) -> dict[str, int]:
        memory = self.memory
        if memory is not None:
            memory.expire()
        return {
            "entries": len(memory) if memory is not None else 0,
            "size_bytes": memory.size_bytes if memory is not None else 0,
            "bytes_max": memory.room_bytes if memory is not None else 0,
            "evictions": (memory.evictions if memory is not None else 0) - self._evictions_before,
            "waiting": self.flights.waiting,
        }


def _to_nobody(_what: Any) -> None:
    return


def _any(_key: str) -> bool:
    return True

"""The port of the value cache: where values are kept, cut at the steps that must be atomic.

    ValueStore    async, what any can do: this process's memory, Redis, one before the other
      .memory     what of it is in this process, for hits that wait for nothing; None: nothing is

Keys are texts of at most KEY_CHARS_MAX + 1 characters.  Values go in and come out as they are: a
store outside of the process packs them (packing.Packer) before its first await.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.caching.values.kept import Kept, Terms
    from perf_middleware.caching.values.stores.memory import MemoryStore


class ValueStore(Protocol):
    """Keeps values by key, with a lifetime and tags.

    Everything may raise StoreUnavailableError, at once where the store is known to be away; the
    cache then goes on with what is in memory, or asks the function.
    """

    @property
    def memory(self) -> MemoryStore | None:
        """The part in this process's memory, asked first and without waiting."""
        ...

    def heard(self) -> Any:
        """How much was heard of other processes, for `Terms.heard`; None: there are none."""
        ...

    async def get(self, key: str) -> Kept | None:
        """What is under `key`, fresh or in its stale time; None where there is nothing."""
        ...

    async def get_many(self, keys: Sequence[str]) -> dict[str, Kept]:
        """What there is under `keys`, in one round trip."""
        ...

    async def put(self, key: str, value: Any, terms: Terms) -> bool:
        """Keep `value`, in place of what was there; False where it found no room.

        Raises UnpackableValueError for what could not be read back.
        """
        ...

    async def put_many(self, values: Mapping[str, Any], terms: Terms) -> int:
        """Keep several in one round trip: how many found room.  Raises UnpackableValueError."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether there is something fresh under `key`, without counting as asked for."""
        ...

    async def drop(self, keys: Sequence[str]) -> int:
        """Let go of `keys`: how many there were."""
        ...

    async def purge(self, tags: Sequence[str]) -> int:
        """Let go of what has any of `tags`: how many there were."""
        ...

    async def clear(self, pattern: str | None) -> int:
        """Let go of what matches `pattern` (patterns.py), None: of everything; how many."""
        ...

    async def increase(self, key: str, amount: int, *, ttl_us: int | None) -> int:
        """Add to the whole number under `key` (none: 0) in one atomic step: the sum.

        `ttl_us` holds for a number that is new; one that is there keeps its lifetime.  Raises
        TypeError where something else is there.
        """
        ...

"""`ValueCache`: what functions returned, kept by their arguments, and values kept by hand.

    memo = ValueCache()

    @memo.cached(ttl=60, tags=("user:{user_id}",))
    async def load(user_id): ...

    @memo.invalidates(tags=("user:{user_id}",))
    async def rename(user_id, name): ...

Two of them share nothing.  Made without a store it keeps its values in this process's memory.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perf_middleware.caching.values.decorators.functions import cached_form
from perf_middleware.caching.values.decorators.properties import CachedProperty
from perf_middleware.caching.values.decorators.writes import invalidating_form
from perf_middleware.caching.values.kept import Terms
from perf_middleware.caching.values.keys import shortened
from perf_middleware.caching.values.options import (
    CallOptions,
    Seconds,
    as_us,
    early_factor,
    tag_texts,
    texts,
    ttl_us,
)
from perf_middleware.caching.values.packing import COMPRESS_BYTES_MIN, Packer
from perf_middleware.caching.values.runtime.asides import Asides
from perf_middleware.caching.values.runtime.core import Core
from perf_middleware.caching.values.stores.memory import MemoryStore
from perf_middleware.clock import monotonic_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from perf_middleware.caching.values.handles import CachedDecorator, CachedValue
    from perf_middleware.caching.values.keys import Rule
    from perf_middleware.caching.values.stores import ValueStore
    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.fleet.runtime import Fleet

F = TypeVar("F", bound="Callable[..., Any]")
R = TypeVar("R")

BYTES_MAX: Final = 32 << 20
ENTRIES_MAX: Final = 50_000
COLLAPSE_WAIT_S: Final = 30.0
WAITING_MAX: Final = 20_000


class ValueCache:
    """Values by key: of decorated functions, and of the app's own `get` and `set`.

    `bytes_max` and `entries_max` bound the memory, `collapse_wait_s` how long a call waits for
    another's run of the same, `waiting_max` how many may.  `clock` gives monotonic microseconds,
    `draw` a number from 0 to 1 for each call in an early window.
    """

    def __init__(
        self,
        *,
        bytes_max: int = BYTES_MAX,
        entries_max: int = ENTRIES_MAX,
        collapse_wait_s: float = COLLAPSE_WAIT_S,
        waiting_max: int = WAITING_MAX,
        compress_bytes_min: int | None = COMPRESS_BYTES_MIN,
        pickle_key: bytes | None = None,
        enabled: bool = True,
        store: ValueStore | None = None,
        clock: Clock = monotonic_us,
        draw: Callable[[], float] = random.random,
    ) -> None:
        memory = MemoryStore(bytes_max=bytes_max, entries_max=entries_max, clock=clock)
        self._core = Core(
            store or memory,
            collapse_wait_s=collapse_wait_s,
            waiting_max=waiting_max,
            enabled=enabled,
            clock=clock,
            draw=draw,
        )
        self.packer = Packer(
            self._core.classes, compress_bytes_min=compress_bytes_min, pickle_key=pickle_key
        )

    def obey(self, is_overloaded: Callable[[], bool]) -> None:
        """While `is_overloaded()`, refresh nothing before its end; `install` does so."""
        self._core.is_overloaded = is_overloaded

    def share(self, fleet: Fleet) -> None:
        """From now on keep values in Redis too, for all processes; `install` does so where
        `redis.url` is set.

        Plain functions that are not async go on with the memory of the process; what they forget
        all others are told.
        """
        # Here and not above: redis-py takes a quarter of a second to import.
        from perf_middleware.caching.values.stores.redis import RedisStore
        from perf_middleware.caching.values.stores.tiered import TieredStore

        core = self._core
        if core.memory is None or core.has_distance:
            raise RuntimeError("this value cache has a store outside of the process already")
        far = RedisStore(fleet, self.packer, clock=core.clock)
        tiered = TieredStore(core.memory, far, core.flights, clock=core.clock)
        core.share(tiered)
        core.tell_soon = tiered.tell_soon

    # --- decorators -----------------------------------------------------------------------------

    def cached(
        self,
        function: None = None,
        /,
        *,
        ttl: Seconds | None,
        key: str | Callable[..., Any] | None = None,
        tags: Iterable[str] | str = (),
        namespace: str | None = None,
        name: str | None = None,
        exclude: Iterable[str] | str = (),
        none: bool = False,
        early: float | None = None,
        stale_if_error: Seconds | None = None,
        copy: bool = True,
    ) -> CachedDecorator:
        """Keep what the function returns, for the arguments that it was called with.

        - `ttl`: seconds or a timedelta; None: until it is invalidated or has to make room.
        - `key`: `"{user_id}"`, or a function of the arguments (None: do not cache this call);
          without it all arguments count but those in `exclude`.
        - `tags`: names to purge by; `{user_id}` is replaced by the argument.
        - `name`: how keys and figures begin, the module and name of the function by default;
          `namespace` is put before it.
        - `none`: keep None too.  `copy=False`: give every caller the very same object.
        - `early`: popular values are made anew before they are over, 1.0 is a good start.
        - `stale_if_error`: how long a value that is over stands in when the function fails.

        The function gets `invalidate`, `refresh`, `bypass` and `key`, called with its arguments,
        and `clear` and `stats`.  Raises TypeError and ValueError for what cannot be cached so.
        """
        if function is not None:
            raise TypeError("@cached needs its brackets: @memo.cached(ttl=60)")
        options = CallOptions(
            ttl_us=ttl_us(ttl),
            stale_us=as_us("stale_if_error", stale_if_error) or 0,
            early=early_factor(early),
            none=none,
            copy=copy,
        )
        tag_names, left_out = tag_texts(tags), texts("exclude", exclude)

        def decorate(function: Any) -> Any:
            return cached_form(
                function, self._core, options=options, key=key, tags=tag_names, exclude=left_out,
                namespace=namespace, name=name,
            )  # fmt: skip

        return decorate

    def cached_property(
        self, getter: None = None, /, *, ttl: Seconds | None
    ) -> Callable[[Callable[[Any], R]], CachedValue[R]]:
        """Keep what the getter works out in the object itself; awaitable where it is async.

        `ttl` as in `cached`; `del user.profile` forgets it.  Raises TypeError for what is no
        function.
        """
        if getter is not None:
            raise TypeError("@cached_property needs its brackets: @memo.cached_property(ttl=60)")
        lifetime_us = ttl_us(ttl)

        def decorate(getter: Callable[[Any], R]) -> Any:
            name = self._core.claim_name(getter, namespace=None, name=None)
            return CachedProperty(getter, self._core, name=name, ttl_us=lifetime_us)

        return decorate

    def invalidates(
        self,
        decorated: None = None,
        /,
        *,
        tags: Iterable[str] | str = (),
        pattern: Iterable[str] | str = (),
        function: Any = (),
    ) -> Callable[[F], F]:
        """Forget, once the decorated function has succeeded, what it has changed.

        By `tags` and by `pattern` over keys, in which `{user_id}` is replaced by the argument, and
        all that is kept of `function`, one or several.  Where it raises nothing is forgotten.
        """
        if decorated is not None:
            raise TypeError("@invalidates needs its brackets: @memo.invalidates(tags=...)")
        functions = function if isinstance(function, list | tuple) else (function,)
        try:
            names = [each.cached_as for each in functions]
        except AttributeError:
            raise TypeError(f"{function!r} is not decorated with this @cached") from None
        tag_names, patterns = tag_texts(tags), texts("pattern", pattern)
        if not (tag_names or patterns or names):
            raise ValueError("@invalidates needs tags, a pattern or a function")

        def decorate(written: F) -> F:
            formed: F = invalidating_form(
                written, self._core, tags=tag_names, patterns=patterns, functions=names
            )
            return formed

        return decorate

    # --- values by key --------------------------------------------------------------------------

    async def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`, or `default`.  Raises StoreUnavailableError as all of these."""
        kept_as = _checked(key)
        kept = await self._core.store.get(kept_as) if self._core.enabled else None
        return default if kept is None or self._core.is_over(kept) else kept.give()

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values that there are under `keys`."""
        by_key = {_checked(key): key for key in keys}
        found = await self._core.store.get_many(list(by_key)) if self._core.enabled else {}
        return {
            by_key[key]: kept.give() for key, kept in found.items() if not self._core.is_over(kept)
        }

    async def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: Seconds | None,
        tags: Iterable[str] | str = (),
        copy: bool = True,
    ) -> bool:
        """Keep `value` under `key`, None too: False where it found no room.

        Raises UnpackableValueError where the store is outside of this process.
        """
        kept_as = _checked(key)
        self._core.flights.spoil(keys=(kept_as,))
        terms = Terms(ttl_us=ttl_us(ttl), tags=tag_texts(tags), copy=copy)
        return self._core.enabled and await self._core.store.put(kept_as, value, terms)

    async def set_many(
        self,
        values: Mapping[str, Any],
        *,
        ttl: Seconds | None,
        tags: Iterable[str] | str = (),
        copy: bool = True,
    ) -> int:
        """Keep several: how many found room."""
        by_key = {_checked(key): value for key, value in values.items()}
        self._core.flights.spoil(keys=by_key)
        terms = Terms(ttl_us=ttl_us(ttl), tags=tag_texts(tags), copy=copy)
        return await self._core.store.put_many(by_key, terms) if self._core.enabled else 0

    async def delete(self, *keys: str) -> int:
        """Forget these: how many there were."""
        return await self._core.drop([_checked(key) for key in keys])

    async def exists(self, key: str) -> bool:
        """Whether there is a value under `key`."""
        return await self._core.store.exists(_checked(key))

    async def incr(self, key: str, amount: int = 1, *, ttl: Seconds | None = None) -> int:
        """Add to the whole number under `key`, in one atomic step; none there is 0: the sum.

        `ttl` is that of a number which is new; one that is there keeps its own.  Raises TypeError
        where something else is under `key`.
        """
        if isinstance(amount, bool) or not isinstance(amount, int):
            raise TypeError(f"amount must be a whole number, not {amount!r}")
        kept_as = _checked(key)
        self._core.flights.spoil(keys=(kept_as,))
        return await self._core.store.increase(kept_as, amount, ttl_us=ttl_us(ttl))

    async def purge(self, *, tags: Iterable[str] | str) -> int:
        """Forget what has any of `tags`: how many values."""
        return await self._core.purge(texts("tags", tags))

    async def clear(self, *, namespace: str | None = None, pattern: str | None = None) -> int:
        """Forget a `namespace` (keys that begin with it and a colon), what matches `pattern` (`*`
        is any text), or everything: how many values.
        """
        if namespace is not None and pattern is not None:
            raise ValueError("clear takes namespace or pattern, not both")
        if namespace is not None:
            pattern = f"{namespace}:*"
        return await self._core.clear(pattern)

    def asides(self, *, is_current: Callable[[], bool] | None = None) -> Asides:
        """For parts whose values say only when they are made what they depend on: the query cache.

        While `is_current()` is false, nothing is answered out of memory without asking Redis.
        """
        return Asides(self._core, is_current=is_current)

    @property
    def size_bytes(self) -> int:
        """What is kept in this process's memory, bytes."""
        memory = self._core.memory
        return 0 if memory is None else memory.size_bytes

    def shrink(self, share: float) -> int:
        """Let go of `share` of the bytes in this process's memory, the least asked for first: how
        many bytes.

        They are not taken again before `grow_back`.  What is in Redis stays there.  From any
        thread, best from one of its own: 25,000 values take some 0.1 s.  Raises ValueError for no
        share.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share!r}")
        memory = self._core.memory
        return 0 if memory is None else memory.shrink(share)

    def grow_back(self) -> None:
        """Let it grow up to its `bytes_max` again; from any thread."""
        if self._core.memory is not None:
            self._core.memory.grow_back()

    # --- what keys and stored values are made of --------------------------------------------------

    def keyed_by(self, cls: type, rule: Rule) -> None:
        """Let objects of `cls` (and of classes below it) be named in keys by what `rule` returns
        for them; None leaves them out: `memo.keyed_by(AsyncSession, None)`.
        """
        self._core.texts.rules[cls] = rule

    def register(self, cls: type, *, name: str | None = None) -> None:
        """Let objects of a dataclass, model, enum or named tuple come back from stored bytes.

        What a cached function is annotated to return is registered by itself.
        """
        self._core.classes.register(cls, name=name)

    # --- what operators see -----------------------------------------------------------------------

    def adjust(
        self,
        *,
        enabled: bool | None = None,
        bytes_max: int | None = None,
        entries_max: int | None = None,
        collapse_wait_s: float | None = None,
        waiting_max: int | None = None,
    ) -> None:
        """Take other bounds: who runs the app has the last word.  What does not fit leaves."""
        core = self._core
        memory = core.memory
        if memory is not None and (bytes_max is not None or entries_max is not None):
            memory.resize(
                bytes_max=memory.bytes_max if bytes_max is None else bytes_max,
                entries_max=memory.entries_max if entries_max is None else entries_max,
            )
        if enabled is not None:
            core.enabled = enabled
            if not enabled and memory is not None:
                memory.forget(memory.keys())
        if collapse_wait_s is not None:
            core.collapse_wait_s = collapse_wait_s
        if waiting_max is not None:
            core.flights.waiting_max = waiting_max

    def families(self) -> Iterator[Family]:
        """The figures for /metrics."""
        return self._core.families()

    def reset_counts(self) -> None:
        """Every count back to zero; what is kept stays."""
        self._core.reset_counts()

    def status(self) -> dict[str, Any]:
        """The totals and the size of the memory, JSON-able."""
        return self._core.status()


def _checked(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be a text, not {key!r}")
    return shortened(key)

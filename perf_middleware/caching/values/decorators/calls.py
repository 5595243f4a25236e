"""A call that found nothing fresh at hand: what a cached function does then.

the early window   one call in it, drawn by chance, runs the function; the others are hits
a run is open      follow it (flights.py)
none is            lead one: ask the store outside of this process, run the function, keep it
the function fails what is stale, or still fresh, stands in for it, where there is such
"""

from __future__ import annotations

import logging
from math import log
from typing import TYPE_CHECKING, Any

import anyio

from perf_middleware.caching.values.decorators.flights import LEADING
from perf_middleware.caching.values.kept import Terms, is_spent_by_reading
from perf_middleware.errors import (
    StoreRefusedError,
    StoreUnavailableError,
    UnpackableValueError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.caching.values.decorators.flights import Flight
    from perf_middleware.caching.values.figures import FunctionCounts
    from perf_middleware.caching.values.kept import Kept
    from perf_middleware.caching.values.options import CallOptions
    from perf_middleware.caching.values.runtime.core import Core

logger = logging.getLogger("perf_middleware.caching")


class Calls:
    """What sync and async calls of one function have in common."""

    threaded = False

    def __init__(
        self,
        cache: Core,
        function: Callable[..., Any],
        *,
        name: str,
        key_of: Callable[..., str | None],
        tags_of: Callable[..., tuple[str, ...]],
        options: CallOptions,
        counts: FunctionCounts,
    ) -> None:
        self.cache = cache
        self.function = function
        self.name = name
        self.key_of = key_of
        self.tags_of = tags_of
        self.options = options
        self.counts = counts
        self._told: set[str] = set()

    def tell_once(self, why: str, text: str, *args: object) -> None:
        """One log line for each reason, however often it comes up."""
        if why not in self._told:
            self._told.add(why)
            logger.warning("%s: %s", self.name, text % args)

    def is_fresh(self, kept: Kept | None) -> bool:
        return kept is not None and self.cache.clock() < kept.fresh_until_us

    def is_served(self, key: str, kept: Kept | None) -> bool:
        """Whether `kept`, which is in its early window or over, is a hit all the same."""
        if kept is None:
            return False
        left_us = kept.fresh_until_us - self.cache.clock()
        if left_us <= 0:
            return False
        if self.cache.is_overloaded is not None and self.cache.is_overloaded():
            return True  # nobody makes anew what is still good
        # The nearer the end and the dearer the making, the likelier that this call refreshes it.
        # Source: Vattani et al., Optimal Probabilistic Cache Stampede Prevention, VLDB 2015.
        gap_us = kept.took_us * self.options.early * -log(1.0 - self.cache.draw())
        return gap_us < left_us or self.cache.flights.is_open(key)

    def hit(self, key: str, kept: Kept) -> Any:
        """The value of `kept` for this caller."""
        memory = self.cache.memory
        if memory is not None:
            memory.note_read(key)
        value = kept.give()
        self.counts.hits += 1
        self.counts.saved_us += kept.took_us
        return value

    def stand_in(self, kept: Kept | None) -> Kept | None:
        """What may stand in for a function that failed."""
        if kept is None or self.cache.clock() >= kept.ends_us:
            return None
        return kept

    def terms(self, flight: Flight, took_us: int) -> Terms:
        options = self.options
        return Terms(
            ttl_us=options.ttl_us,
            stale_us=options.stale_us,
            tags=flight.tags,
            took_us=took_us,
            early=options.early,
            copy=options.copy,
            heard=flight.heard,
        )

    def may_keep(self, value: object) -> bool:
        """Whether `value` is one to keep; says once why not."""
        if value is None:
            return self.options.none
        if is_spent_by_reading(value):
            self.counts.uncached += 1
            self.tell_once(
                "spent",
                "its result is a %s, which a second caller would find empty: it is not cached",
                type(value).__name__,
            )
            return False
        return True

    def keep_in_memory(self, flight: Flight, value: Any, took_us: int) -> None:
        memory = self.cache.memory
        if memory is None or not flight.may_be_kept() or not self.may_keep(value):
            return
        if memory.keep(flight.key, value, self.terms(flight, took_us)) is None:
            self.counts.uncached += 1
            self.tell_once("room", "its result is too large for the room that there is")
        if not flight.may_be_kept():  # by another thread, just now
            memory.forget((flight.key,))

    def followed(self, flight: Flight) -> Any:
        """What the run that this call waited for gave; raises its error."""
        self.counts.collapsed += 1
        value = flight.result()
        self.counts.saved_us += flight.took_us
        return value


class AsyncCalls(Calls):
    """Calls of a coroutine function."""

    async def answer(
        self, key: str | None, kept: Kept | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The value for a call that found `kept`, no fresh one, in memory."""
        cache = self.cache
        if key is None or not cache.enabled:
            return await self.bypass(*args, **kwargs)
        tags = self.tags_of(*args, **kwargs)
        while not self.is_served(key, kept):
            flight, leads = cache.flights.lead(key, tags, threaded=False)
            if leads:
                return await self._lead(flight, self.stand_in(kept), args, kwargs)
            follows = cache.flights.is_to_follow(flight, threaded=False)
            try:
                if follows and not await flight.landed(cache.collapse_wait_s):
                    cache.flights.give_up(flight)
            finally:
                cache.flights.release(flight)
            if not follows:
                self.counts.misses += 1
                return await self.function(*args, **kwargs)
            if flight.has_answer:
                return self.followed(flight)
            kept = cache.look(key)
        assert kept is not None  # noqa: S101 - it is served
        return self.hit(key, kept)

    async def bypass(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function: what is kept is neither looked at nor changed."""
        self.counts.bypassed += 1
        return await self.function(*args, **kwargs)

    async def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function now and keep what it returns, in place of what there is.

        Raises what the function raises; what is kept stays then.
        """
        key = self.key_of(*args, **kwargs)
        if key is None or not self.cache.enabled:
            return await self.bypass(*args, **kwargs)
        flights = self.cache.flights
        flights.spoil(keys=(key,))  # a run that was begun before must not be kept after this one
        flight = flights.replace(key, self.tags_of(*args, **kwargs), threaded=False)
        return await self._lead(flight, None, args, kwargs, anew=True)

    async def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget what is kept for these arguments: whether there was something."""
        key = self.key_of(*args, **kwargs)
        return key is not None and await self.cache.drop([key]) > 0

    async def clear(self) -> int:
        """Forget all that is kept of this function: how many values."""
        return await self.cache.clear(f"{self.name}:*")

    async def _lead(
        self,
        flight: Flight,
        kept: Kept | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        anew: bool = False,
    ) -> Any:
        cache, counts = self.cache, self.counts
        leading = LEADING.get()
        LEADING.set((*leading, flight))
        try:
            if cache.has_distance:
                flight.heard = cache.store.heard()
            if cache.has_distance and not anew:
                found = await self._ask_store(flight)
                if found is not None and cache.clock() < found.fresh_until_us:
                    flight.land(
                        found.give(), copy=self.options.copy, took_us=found.took_us, closed=False
                    )
                    return self.hit(flight.key, found)
                kept = self.stand_in(found) or kept
            began_us = cache.clock()
            try:
                value = await self.function(*args, **kwargs)
            except Exception as error:
                counts.errors += 1
                if kept is None or not self.stand_in(kept):
                    counts.misses += 1
                    cache.flights.close(flight)
                    flight.fail(error)
                    raise
                self.tell_once("stale", "it failed, and a kept value stands in for it: %r", error)
                counts.stale += 1
                cache.flights.close(flight)
                flight.land(kept.give(), copy=self.options.copy, took_us=kept.took_us)
                return kept.give()
            counts.misses += 1
            await self._keep(flight, value, cache.clock() - began_us, anew=anew)
            return value
        finally:
            LEADING.set(leading)
            cache.flights.close(flight)
            flight.leave()

    async def _keep(self, flight: Flight, value: Any, took_us: int, *, anew: bool) -> None:
        cache, copy = self.cache, self.options.copy
        if not cache.has_distance:
            self.keep_in_memory(flight, value, took_us)
            cache.flights.close(flight)
            flight.land(value, copy=copy, took_us=took_us)
            return
        flight.land(value, copy=copy, took_us=took_us, closed=False)
        if not flight.may_be_kept() or not self.may_keep(value):
            return
        try:
            if not await cache.store.put(flight.key, value, self.terms(flight, took_us)):
                self.counts.uncached += 1
        except UnpackableValueError as error:
            self.counts.uncached += 1
            self.tell_once("unpackable", "%s", error)
            if anew:  # what was there before is older than what this call returns
                await cache.drop([flight.key])
        except (StoreUnavailableError, StoreRefusedError):
            cache.figures.store_errors += 1
        if not flight.may_be_kept():  # while it was on its way
            with anyio.CancelScope(shield=True):
                await cache.drop([flight.key])

    async def _ask_store(self, flight: Flight) -> Kept | None:
        try:
            return await self.cache.store.get(flight.key)
        except (StoreUnavailableError, StoreRefusedError):
            self.cache.figures.store_errors += 1
            return None


class SyncCalls(Calls):
    """Calls of a plain function, from any thread; they know the memory of this process alone."""

    threaded = True

    def answer(
        self, key: str | None, kept: Kept | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The value for a call that found `kept`, no fresh one, in memory."""
        cache = self.cache
        if key is None or not cache.enabled:
            return self.bypass(*args, **kwargs)
        tags = self.tags_of(*args, **kwargs)
        while not self.is_served(key, kept):
            flight, leads = cache.flights.lead(key, tags, threaded=True)
            if leads:
                newer = cache.look(key)  # of a run that ended between our look and our lead
                if newer is not kept and self.is_fresh(newer):
                    cache.flights.close(flight)
                    flight.leave()
                    kept = newer
                    continue
                return self._lead(flight, self.stand_in(kept), args, kwargs)
            follows = cache.flights.is_to_follow(flight, threaded=True) and not is_on_event_loop()
            try:
                if follows and not flight.landed_in_thread(cache.collapse_wait_s):
                    cache.flights.give_up(flight)
            finally:
                cache.flights.release(flight)
            if not follows:
                self.counts.misses += 1
                return self.function(*args, **kwargs)
            if flight.has_answer:
                return self.followed(flight)
            kept = cache.look(key)
        assert kept is not None  # noqa: S101 - it is served
        return self.hit(key, kept)

    def bypass(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function: what is kept is neither looked at nor changed."""
        self.counts.bypassed += 1
        return self.function(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function now and keep what it returns, in place of what there is.

        Raises what the function raises; what is kept stays then.
        """
        key = self.key_of(*args, **kwargs)
        if key is None or not self.cache.enabled:
            return self.bypass(*args, **kwargs)
        flights = self.cache.flights
        flights.spoil(keys=(key,))
        flight = flights.replace(key, self.tags_of(*args, **kwargs), threaded=True)
        return self._lead(flight, None, args, kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget what is kept for these arguments: whether there was something."""
        key = self.key_of(*args, **kwargs)
        return key is not None and self.cache.forget([key]) > 0

    def clear(self) -> int:
        """Forget all that is kept of this function: how many values."""
        return self.cache.forget_matching(f"{self.name}:*")

    def _lead(
        self, flight: Flight, kept: Kept | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        cache, counts, copy = self.cache, self.counts, self.options.copy
        leading = LEADING.get()
        LEADING.set((*leading, flight))
        try:
            began_us = cache.clock()
            try:
                value = self.function(*args, **kwargs)
            except Exception as error:
                counts.errors += 1
                cache.flights.close(flight)
                if kept is None or not self.stand_in(kept):
                    counts.misses += 1
                    flight.fail(error)
                    raise
                self.tell_once("stale", "it failed, and a kept value stands in for it: %r", error)
                counts.stale += 1
                flight.land(kept.give(), copy=copy, took_us=kept.took_us)
                return kept.give()
            counts.misses += 1
            took_us = cache.clock() - began_us
            self.keep_in_memory(flight, value, took_us)
            cache.flights.close(flight)
            flight.land(value, copy=copy, took_us=took_us)
            return value
        finally:
            LEADING.set(leading)
            cache.flights.close(flight)
            flight.leave()


def is_on_event_loop() -> bool:
    """Whether to wait here would hold up an event loop, for which the leader may wait in turn."""
    try:
        anyio.get_current_task()
    except Exception:  # noqa: BLE001 - it raises of several kinds where there is no loop
        return False
    return True

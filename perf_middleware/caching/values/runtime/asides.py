"""Values beside the functions: kept under a key by a run that says itself what they depend on.

A decorated function knows its tags before it runs; a query knows the tables that it reads after.
So a run here returns a `Made`, and what was purged while it went on is held against its tags then
(`Flights.tag`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from perf_middleware.caching.values.decorators.flights import LEADING
from perf_middleware.caching.values.kept import Terms
from perf_middleware.caching.values.keys import Unkeyable, shortened
from perf_middleware.errors import (
    RequestRejectedError,
    StoreRefusedError,
    StoreUnavailableError,
    UnpackableValueError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from perf_middleware.caching.values.decorators.flights import Flight
    from perf_middleware.caching.values.kept import Kept
    from perf_middleware.caching.values.runtime.core import Core

HIT: Final = "hit"
COLLAPSED: Final = "collapsed"
STORED: Final = "stored"
UNKEPT: Final = "unkept"  # the run did not want it kept
ALONE: Final = "alone"  # too many wait already, or it called itself
PURGED: Final = "purged"
UNPACKABLE: Final = "unpackable"
TOO_LARGE: Final = "too large"
STORE_AWAY: Final = "store away"
OFF: Final = "off"


class Made(Protocol):
    """What a run made; `copy` False: nobody can change it, so that all may have the same."""

    @property
    def value(self) -> Any: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def ttl_us(self) -> int: ...
    @property
    def copy(self) -> bool: ...
    @property
    def is_to_keep(self) -> bool: ...


class Asides:
    """Of one value cache.  `is_current()` says whether memory is known to lack no purge of others;
    while it does not, the store outside of the process is asked.
    """

    def __init__(self, core: Core, *, is_current: Callable[[], bool] | None) -> None:
        self._core = core
        self._is_current = is_current

    @property
    def is_on(self) -> bool:
        return self._core.enabled

    @property
    def newest_purge(self) -> int:
        """How many purges there were, this process's own and those it has heard of."""
        return self._core.flights.purges

    def find(self, key: str) -> Kept | None:
        """What is fresh in this process's memory, for a hit that waits for nothing.

        `key` is at most KEY_CHARS_MAX + 1 characters (`named`).
        """
        core = self._core
        memory = core.memory
        kept = memory.look(key) if memory is not None else None
        if kept is None or core.clock() >= kept.fresh_until_us or not core.enabled:
            return None
        assert memory is not None  # noqa: S101 - it was found there
        if core.has_distance and self._is_current is not None and not self._is_current():
            memory.forget((key,))  # or the store would look there first
            return None
        memory.note_read(key)
        return kept

    async def get_or_make(
        self, key: str, make: Callable[[], Awaitable[Made]], *, holds: bool = False
    ) -> tuple[Any, str]:
        """The value under `key`, or what `make()` makes once for all who ask meanwhile; and how it
        came: HIT, COLLAPSED, or what became of the new one.

        Raises what `make` raises, also in who waits for it.  Who `holds` what a run may need, a
        connection, does not wait for one who holds none.
        """
        core = self._core
        if not core.enabled:
            return (await make()).value, OFF
        while True:
            kept = self.find(key)
            if kept is not None:
                return kept.give(), HIT
            flight, leads = core.flights.lead(key, None, threaded=False)
            if leads:
                return await self._lead(flight, make, holds=holds)
            can_follow = core.flights.is_to_follow(flight, threaded=False)
            follows = can_follow and (flight.holds or not holds)
            try:
                if follows and not await flight.landed(core.collapse_wait_s):
                    core.flights.give_up(flight)
            finally:
                core.flights.release(flight)
            if not can_follow:
                return (await make()).value, ALONE
            if not follows:
                flight = core.flights.replace(key, None, threaded=False)
                return await self._lead(flight, make, holds=True)
            if flight.has_answer:
                return flight.result(), COLLAPSED

    async def purge(self, tags: Collection[str]) -> int:
        """Forget what has any of `tags`, in all processes: how many values."""
        return await self._core.purge(tuple(tags))

    def purge_here(self, tags: Collection[str]) -> None:
        """The same in this process's memory alone, at once and from any thread."""
        core = self._core
        core.flights.spoil(tags=tags)
        if core.memory is not None:
            core.memory.forget(core.memory.tagged(tags))

    def owe(self, tags: Collection[str]) -> None:
        """Let other processes hear of such a purge when that is possible; from any thread."""
        self._core.tell_soon(("tags", tuple(tags)))

    async def forget(self, key: str) -> bool:
        """Forget what is under `key`, in all processes: whether there was something."""
        return await self._core.drop([key]) > 0

    def named(self, key: str) -> str:
        """`key`, or its beginning and a digest where it is longer than keys may be."""
        return shortened(key)

    def text_of(self, value: object) -> str | None:
        """A text that no other value has, of whatever type; None where it has none."""
        try:
            return self._core.texts.of(value)
        except Unkeyable:
            return None

    def register(self, cls: type) -> bool:
        """Let objects of `cls` come back from stored bytes; False where that is no such class."""
        if self._core.classes.of(cls) is not None:
            return True
        try:
            self._core.classes.register(cls)
        except (TypeError, ValueError):
            return False
        return True

    def learn(self, function: Callable[..., Any]) -> None:
        """Register the classes that `function` is annotated to return."""
        self._core.classes.learn(function)

    # --- a run ------------------------------------------------------------------------------------

    async def _lead(
        self, flight: Flight, make: Callable[[], Awaitable[Made]], *, holds: bool
    ) -> tuple[Any, str]:
        core = self._core
        flight.holds = holds
        leading = LEADING.get()
        LEADING.set((*leading, flight))
        try:
            if core.has_distance:
                flight.heard = core.store.heard()
                found = await self._ask_store(flight.key)
                if found is not None and core.clock() < found.fresh_until_us:
                    flight.land(found.give(), copy=True, took_us=found.took_us, closed=False)
                    return found.give(), HIT
            began_us = core.clock()
            try:
                made = await make()
            except RequestRejectedError:
                raise  # of this one's request, its deadline say: the next who waits tries himself
            except Exception as error:
                core.flights.close(flight)
                flight.fail(error)
                raise
            core.flights.tag(flight, made.tags)
            return made.value, await self._keep(flight, made, core.clock() - began_us)
        finally:
            LEADING.set(leading)
            core.flights.close(flight)
            flight.leave()

    async def _keep(self, flight: Flight, made: Made, took_us: int) -> str:
        core = self._core
        flight.land(made.value, copy=made.copy, took_us=took_us, closed=False)
        if not made.is_to_keep:
            return UNKEPT
        if not flight.may_be_kept():
            return PURGED
        terms = Terms(
            ttl_us=made.ttl_us, tags=made.tags, took_us=took_us, copy=made.copy, heard=flight.heard
        )
        outcome = STORED
        try:
            if not await core.store.put(flight.key, made.value, terms):
                outcome = PURGED if core.has_distance else TOO_LARGE
        except UnpackableValueError:
            return UNPACKABLE
        except (StoreUnavailableError, StoreRefusedError):
            core.figures.store_errors += 1
            return STORE_AWAY
        if not flight.may_be_kept():  # while it was on its way
            with anyio.CancelScope(shield=True):
                await core.drop([flight.key])
            return PURGED
        return outcome

    async def _ask_store(self, key: str) -> Kept | None:
        try:
            return await self._core.store.get(key)
        except (StoreUnavailableError, StoreRefusedError):
            self._core.figures.store_errors += 1
            return None

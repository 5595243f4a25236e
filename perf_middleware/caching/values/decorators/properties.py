"""`@memo.cached_property(...)`: a value that an object works out once, for a time.

It lives with the object, not in the store: it is the object's own, given as it is each time, and
goes when the object goes.  Of an async getter each access gives an awaitable.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import ref

from perf_middleware.caching.values.classes import PLACE
from perf_middleware.caching.values.decorators.calls import is_on_event_loop
from perf_middleware.caching.values.decorators.flights import LEADING, Flight
from perf_middleware.caching.values.decorators.functions import require_function
from perf_middleware.caching.values.kept import NEVER_US

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.caching.values.runtime.core import Core


class Cell:
    """What one object has worked out.  A copy of the object, or its pickle, starts anew."""

    __slots__ = ("flight", "owner", "took_us", "until_us", "value")

    def __init__(self, owner: object = None) -> None:
        self.owner = None if owner is None else ref(owner)
        self.value: Any = None
        self.until_us = -1
        self.took_us = 0
        self.flight: Flight | None = None

    def __reduce__(self) -> tuple[type[Cell], tuple[()]]:
        return Cell, ()


class CachedProperty(property):
    """A property whose value is kept in the object, for `ttl_us` (None: until it is deleted)."""

    def __init__(
        self, getter: Callable[[Any], Any], cache: Core, *, name: str, ttl_us: int | None
    ) -> None:
        self._is_async = require_function(getter, what="cached_property")
        # Not given our own methods: a property in a cycle of references is never freed.
        super().__init__(getter)
        self._getter = getter
        self._cache = cache
        self._ttl_us = ttl_us
        self._counts = cache.figures.of(name)
        # Where its cell is in an object's __dict__.
        self._place = PLACE + getattr(getter, "__name__", "value")
        self.stats = self._counts.stats

    def __set_name__(self, owner: type, name: str) -> None:
        self._place = PLACE + name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return self._awaited(instance) if self._is_async else self._worked_out(instance)

    def __delete__(self, instance: Any) -> None:
        cell = self._cell(instance)
        cell.until_us = -1
        cell.value = None
        if cell.flight is not None:
            cell.flight.is_spoiled = True
            cell.flight = None

    def _cell(self, instance: Any) -> Cell:
        try:
            places = instance.__dict__
        except AttributeError:
            raise TypeError(
                f"{type(instance).__name__} has no __dict__ (__slots__ without it), so a cached "
                "property has no place in it"
            ) from None
        cell = places.get(self._place)
        if type(cell) is Cell and cell.owner is not None and cell.owner() is instance:
            return cell
        made = places[self._place] = Cell(instance)
        return made

    def _is_hit(self, cell: Cell) -> bool:
        if self._cache.clock() >= cell.until_us:
            return False
        self._counts.hits += 1
        self._counts.saved_us += cell.took_us
        return True

    def _keep(self, cell: Cell, flight: Flight, value: Any, began_us: int) -> None:
        now_us = self._cache.clock()
        self._counts.misses += 1
        if not flight.is_spoiled and self._cache.enabled:
            cell.value = value
            cell.took_us = now_us - began_us
            cell.until_us = NEVER_US if self._ttl_us is None else now_us + self._ttl_us
        if cell.flight is flight:
            cell.flight = None
        flight.land(value, copy=False, took_us=now_us - began_us, closed=False)

    def _fail(self, cell: Cell, flight: Flight, error: Exception) -> None:
        self._counts.misses += 1
        self._counts.errors += 1
        if cell.flight is flight:
            cell.flight = None
        flight.fail(error)

    def _may_follow(self, flight: Flight | None, *, threaded: bool) -> bool:
        if flight is None or flight in LEADING.get() or not self._cache.enabled:
            return False
        return not is_on_event_loop() if threaded else flight.thread == get_ident()

    async def _awaited(self, instance: Any) -> Any:
        cell = self._cell(instance)
        while not self._is_hit(cell):
            flight = cell.flight
            if flight is None or not self._may_follow(flight, threaded=False):
                return await self._lead(instance, cell)
            flight.waiting += 1
            if not await flight.landed(self._cache.collapse_wait_s) and cell.flight is flight:
                cell.flight = None
            if flight.has_answer:
                self._counts.collapsed += 1
                return flight.result()
        return cell.value

    async def _lead(self, instance: Any, cell: Cell) -> Any:
        flight = cell.flight = Flight(self._place, (), threaded=False)
        leading = LEADING.get()
        LEADING.set((*leading, flight))
        began_us = self._cache.clock()
        try:
            value = await self._getter(instance)
        except Exception as error:
            self._fail(cell, flight, error)
            raise
        else:
            self._keep(cell, flight, value, began_us)
            return value
        finally:
            LEADING.set(leading)
            if cell.flight is flight:
                cell.flight = None
            flight.leave()

    def _worked_out(self, instance: Any) -> Any:
        cell = self._cell(instance)
        while not self._is_hit(cell):
            flight = cell.flight
            if flight is None or not self._may_follow(flight, threaded=True):
                return self._lead_in_thread(instance, cell)
            flight.waiting += 1
            if not flight.landed_in_thread(self._cache.collapse_wait_s) and cell.flight is flight:
                cell.flight = None
            if flight.has_answer:
                self._counts.collapsed += 1
                return flight.result()
        return cell.value

    def _lead_in_thread(self, instance: Any, cell: Cell) -> Any:
        flight = cell.flight = Flight(self._place, (), threaded=True)
        leading = LEADING.get()
        LEADING.set((*leading, flight))
        began_us = self._cache.clock()
        try:
            value = self._getter(instance)
        except Exception as error:
            self._fail(cell, flight, error)
            raise
        else:
            self._keep(cell, flight, value, began_us)
            return value
        finally:
            LEADING.set(leading)
            if cell.flight is flight:
                cell.flight = None
            flight.leave()

"""A value that is made at its first use, once, and again after it was let go of.

    LazyValue        for threads: `make()` runs in the first that asks, others wait for it
    AsyncLazyValue   for tasks: `await make()` runs in the first task that asks, others wait

A failure goes to those who waited and is not kept, unless that is asked for.  A leader that is
cancelled or interrupted takes nobody with it: one of those who wait leads then.
"""

from __future__ import annotations

import weakref
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from perf_middleware.memory_watch.structures.stores.making import MISSING, Failure, Makings, Missing
from perf_middleware.memory_watch.structures.stores.weak import check_referencable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

V = TypeVar("V")


class _Slot(Generic[V]):
    """Where a value is kept, strongly or weakly."""

    __slots__ = ("_is_weak", "_kept", "_ref")

    def __init__(self, *, is_weak: bool) -> None:
        self._is_weak = is_weak
        self._kept: V | Missing = MISSING
        self._ref: weakref.ref[V] | None = None

    def get(self) -> V | Missing:
        if not self._is_weak:
            return self._kept
        value = None if self._ref is None else self._ref()
        return MISSING if value is None else value

    def set(self, value: V) -> None:
        if self._is_weak:
            check_referencable(value)
            self._ref = weakref.ref(value)
        else:
            self._kept = value

    def empty(self) -> V | Missing:
        """What was there."""
        before = self.get()
        self._kept, self._ref = MISSING, None
        return before


class LazyValue(Generic[V]):
    """`value.get()` makes it at the first use; any thread may call anything.

    With `weak` it is kept only while somebody else holds it.  With `keep_failure` what `make`
    raised is raised again until `reset`.
    """

    def __init__(
        self, make: Callable[[], V], *, weak: bool = False, keep_failure: bool = False
    ) -> None:
        self.makings = 0
        self.failures = 0
        self._make = make
        self._keep_failure = keep_failure
        self._slot: _Slot[V] = _Slot(is_weak=weak)
        self._failure: Failure | None = None
        self._lock = RLock()
        self._flights: Makings[str, V] = Makings(self._lock)

    @property
    def is_made(self) -> bool:
        """Whether `get` would find it."""
        return self._slot.get() is not MISSING

    def get(self) -> V:
        """The value.  Raises what `make` raises, RuntimeError where `make` asks for this value."""
        found = self._slot.get()  # one look-up: no lock where it is there
        if not isinstance(found, Missing):
            return found
        return self._flights.get_or_make(
            "a LazyValue",
            look_up_locked=self._look_up_locked,
            make=self._made,
            keep_locked=self._keep_locked,
        )

    def reset(self) -> bool:
        """Let go of the value, or of the failure; the next use makes it anew.

        What is being made now is handed out to those who wait, and not kept.  True where there was
        a value.
        """
        with self._lock:
            self._flights.overtake_all_locked()
            before = self._slot.empty()
            self._failure = None
        return before is not MISSING

    def _look_up_locked(self) -> V | Missing:
        if self._failure is not None:
            raise self._failure.again()
        return self._slot.get()

    def _made(self) -> V:
        try:
            value = self._make()
        except Exception as exc:
            with self._lock:
                self.failures += 1
                if self._keep_failure and self._flights.is_current_locked("a LazyValue"):
                    self._failure = Failure(exc)
            raise
        return value

    def _keep_locked(self, value: V) -> V:
        self._slot.set(value)
        self.makings += 1
        return value


class _AsyncFlight(Generic[V]):
    """One making in one thread's event loop."""

    __slots__ = ("done", "failure", "is_overtaken", "task", "value")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.task = anyio.get_current_task().id
        self.value: V | Missing = MISSING
        self.failure: Failure | None = None
        self.is_overtaken = False


class AsyncLazyValue(Generic[V]):
    """`await value.get()` makes it at the first use, in the task that asks first.

    For asyncio and trio.  Tasks of one event loop wait for one making; event loops in several
    threads make it once each at the same time, and the first that is done is kept.

    With `weak` it is kept only while somebody else holds it.  With `keep_failure` what `make`
    raised is raised again until `reset`.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[V]],
        *,
        weak: bool = False,
        keep_failure: bool = False,
    ) -> None:
        self.makings = 0
        self.failures = 0
        self._make = make
        self._keep_failure = keep_failure
        self._slot: _Slot[V] = _Slot(is_weak=weak)
        self._failure: Failure | None = None
        # Of the steps, which never wait: several loops may share the value.  Reentrant: a finalizer
        # may come back in the middle of one.
        self._lock = RLock()
        self._flights: dict[int, _AsyncFlight[V]] = {}  # by thread: each runs one loop at a time

    @property
    def is_made(self) -> bool:
        """Whether `get` would find it."""
        return self._slot.get() is not MISSING

    async def get(self) -> V:
        """The value.  Raises what `make` raises, RuntimeError where `make` asks for this value."""
        thread = get_ident()
        while True:
            found = self._slot.get()
            if not isinstance(found, Missing):
                return found
            failure = self._failure
            if failure is not None:
                raise failure.again()
            flight = self._flights.get(thread)
            if flight is None:
                return await self._lead(thread)
            if flight.task == anyio.get_current_task().id:
                raise RuntimeError("making an AsyncLazyValue waits for itself")
            await flight.done.wait()
            if flight.failure is not None:
                raise flight.failure.again()
            if not isinstance(flight.value, Missing):
                return flight.value

    def reset(self) -> bool:
        """Let go of the value, or of the failure; the next use makes it anew.

        What is being made now is handed out to those who wait, and not kept.  True where there was
        a value.  From any thread.
        """
        with self._lock:
            for flight in self._flights.values():
                flight.is_overtaken = True
            self._flights = {}
            before = self._slot.empty()
            self._failure = None
        return before is not MISSING

    async def _lead(self, thread: int) -> V:
        flight: _AsyncFlight[V] = _AsyncFlight()
        with self._lock:
            self._flights[thread] = flight
        try:
            value = flight.value = self._keep(flight, await self._make())
        except Exception as exc:
            flight.failure = Failure(exc)
            with self._lock:
                self.failures += 1
                if self._keep_failure and not flight.is_overtaken:
                    self._failure = flight.failure
            raise
        finally:
            with self._lock:
                if self._flights.get(thread) is flight:
                    del self._flights[thread]
            flight.done.set()
        return value

    def _keep(self, flight: _AsyncFlight[V], value: V) -> V:
        """Where another loop was quicker, its value."""
        with self._lock:
            if flight.is_overtaken:
                return value
            found = self._slot.get()
            if not isinstance(found, Missing):
                return found
            self._slot.set(value)
            self.makings += 1
        return value

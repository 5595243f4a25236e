"""One making at a time for each key, over all threads that ask for it.

    thread 1   looks up, finds nothing, leads: make() ------------> keeps it, tells the others
    thread 2          looks up, finds nothing, waits ............-> the same value
    thread 3                 puts another value: what thread 1 makes is handed out and not kept

The maker runs without the lock.  A failure goes to those who waited for it and is not kept.  Where
the leader was interrupted (no Exception, but a BaseException), one of the others leads.

A thread that would wait for itself, at once or over other threads of the same object, gets a
RuntimeError instead: the wait would never end.
"""

from __future__ import annotations

from threading import Event, get_ident
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from threading import RLock

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Missing:
    """The type of MISSING: nothing, where None may be a value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


class Failure:
    """An exception that is raised more than once: every time as it was when it was kept.

    Raised as it is, it would take one more traceback along each time, with the frames of all who
    ever got it and what these refer to.
    """

    __slots__ = ("_error", "_traceback")

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._traceback = error.__traceback__

    def again(self) -> Exception:
        """To be raised now."""
        return self._error.with_traceback(self._traceback)


class Flight(Generic[V]):
    """One making; `outcome` is set before `done` is."""

    __slots__ = ("done", "failure", "is_overtaken", "leader", "value")

    def __init__(self) -> None:
        self.leader = get_ident()
        self.done: Event | None = None  # made by the first who waits
        self.value: V | Missing = MISSING
        self.failure: Failure | None = None
        self.is_overtaken = False


class Makings(Generic[K, V]):
    """The makings of one structure that are under way; `lock` is the structure's own."""

    __slots__ = ("_flights", "_lock", "_waits")

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self._flights: dict[K, Flight[V]] = {}
        self._waits: dict[int, Flight[V]] = {}

    def overtake_locked(self, key: K) -> None:
        """What is being made for `key` is outdated: whoever asks from now on makes anew."""
        if self._flights:
            flight = self._flights.pop(key, None)
            if flight is not None:
                flight.is_overtaken = True

    def overtake_all_locked(self) -> None:
        """The same for all keys."""
        while self._flights:
            self._flights.popitem()[1].is_overtaken = True

    def is_current_locked(self, key: K) -> bool:
        """Whether this thread is making the value of `key`, and was not overtaken."""
        flight = self._flights.get(key)
        return flight is not None and flight.leader == get_ident()

    def get_or_make(
        self,
        key: K,
        *,
        look_up_locked: Callable[[], V | Missing],
        make: Callable[[], V],
        keep_locked: Callable[[V], V],
    ) -> V:
        """What is there, or what is made now; `keep_locked` may give another value than it got."""
        while True:
            with self._lock:
                found = look_up_locked()
                if not isinstance(found, Missing):
                    return found
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = Flight()
                    break
                done = self._begin_to_wait_locked(key, flight)
            try:
                done.wait()
            finally:
                with self._lock:
                    self._waits.pop(get_ident(), None)
            if flight.failure is not None:
                raise flight.failure.again()
            if not isinstance(flight.value, Missing):
                return flight.value
        return self._lead(key, flight, make, keep_locked)

    def _begin_to_wait_locked(self, key: K, flight: Flight[V]) -> Event:
        own = get_ident()
        behind: Flight[V] | None = flight
        while behind is not None:
            if behind.leader == own:
                raise RuntimeError(f"making the value of {key!r} waits for itself")
            behind = self._waits.get(behind.leader)
        self._waits[own] = flight
        if flight.done is None:
            flight.done = Event()
        return flight.done

    def _lead(
        self, key: K, flight: Flight[V], make: Callable[[], V], keep_locked: Callable[[V], V]
    ) -> V:
        value: V | Missing = MISSING
        failure: Failure | None = None
        try:
            value = make()
            with self._lock:
                if not flight.is_overtaken:
                    value = keep_locked(value)
        except Exception as exc:
            value, failure = MISSING, Failure(exc)
            raise
        finally:
            with self._lock:
                flight.value, flight.failure = value, failure
                if self._flights.get(key) is flight:
                    del self._flights[key]
                done = flight.done
            if done is not None:
                done.set()
        return value

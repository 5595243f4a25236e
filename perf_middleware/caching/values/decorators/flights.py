"""One run of a function for many calls of one key: who leads, who waits, who takes over.

    leader    runs the function in its own task or thread, with its own context variables
    follower  waits for it, at most `wait_s`, and gets its value (a copy) or its error

- A leader that is cancelled has said nothing: the first follower to wake leads the next run.
- One that takes longer than a follower will wait is given up: that follower leads a run of its own,
  and what comes later follows him.  So there is one more run for each `wait_s`, never a crowd.
- What is invalidated meanwhile spoils the run: its value goes to those who waited already, is not
  kept, and who calls from now on does not follow it.
- A run that finds its tags only as it goes on (`lead(key, None)`, then `tag`) notes what is purged
  until then, and nobody follows it after a purge.
- A run that calls itself by the same key does not wait for itself: LEADING tells, also in tasks and
  threads that it has started.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event, Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.caching.values.kept import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Literal

    State = Literal["open", "value", "error", "gone"]

LEADING: ContextVar[tuple[Flight, ...]] = ContextVar("perf_middleware_leading", default=())


class Flight:
    """One run; `state` is `gone` where it ended without a value or an error of the function."""

    __slots__ = (
        "_error", "_event", "_held", "_thaw", "_traceback", "heard", "holds", "is_closed",
        "is_spoiled", "is_threaded", "key", "purged", "state", "tags", "thread", "took_us",
        "waiting",
    )  # fmt: skip

    def __init__(self, key: str, tags: tuple[str, ...], *, threaded: bool) -> None:
        self.key = key
        self.tags = tags
        self.purged: set[str] | None = None  # the tags purged while its own are not known
        self.holds = False  # what others wait for, a connection say
        self.thread = get_ident()
        self.is_threaded = threaded
        self.is_closed = False
        self.is_spoiled = False
        self.state: State = "open"
        self.heard: Any = None
        self.waiting = 0
        self.took_us = 0
        self._held: Any = None
        self._thaw: Callable[[Any], Any] | None = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self._event: Any = None

    @property
    def has_answer(self) -> bool:
        """Whether it ended with a value or an error of the function."""
        return self.state in ("value", "error")

    def may_be_kept(self) -> bool:
        """Whether nothing that concerns its value was invalidated since it began."""
        return not self.is_spoiled

    def land(self, value: Any, *, copy: bool, took_us: int, closed: bool = True) -> None:
        """Give `value` to who waits, and where it is not `closed` to who comes until it is."""
        if self.state == "open":
            if self.waiting or not closed:
                self._held, self._thaw, _ = frozen(value, copy=copy)
            self.took_us = took_us
            self._end("value")

    def fail(self, error: Exception) -> None:
        """Raise `error` in who waits."""
        if self.state == "open":
            self._error, self._traceback = error, error.__traceback__
            self._end("error")

    def leave(self) -> None:
        """End without an answer; nothing where there is one."""
        if self.state == "open":
            self._end("gone")

    def result(self) -> Any:
        """The value, the follower's own; raises the function's error."""
        if self._error is not None:
            # Without this each follower's frames would be added to the one traceback they share.
            raise self._error.with_traceback(self._traceback)
        return self._held if self._thaw is None else self._thaw(self._held)

    async def landed(self, wait_s: float) -> bool:
        """Wait for the end, False where it did not come in time."""
        if self.state != "open":
            return True
        if self._event is None:
            self._event = anyio.Event()
        with anyio.move_on_after(wait_s) as waited:
            await self._event.wait()
        return not waited.cancelled_caught

    def landed_in_thread(self, wait_s: float) -> bool:
        """The same for threads."""
        with _EVENTS:
            if self.state != "open":
                return True
            if self._event is None:
                self._event = Event()
        return bool(self._event.wait(wait_s))

    def _end(self, state: State) -> None:
        if not self.is_threaded:
            self.state = state
            if self._event is not None:
                self._event.set()
            return
        with _EVENTS:
            self.state = state
            if self._event is not None:
                self._event.set()


PURGED_MAX: Final = 10_000  # tags noted for one run; after more it is spoiled

_EVENTS = Lock()  # guards the making of threads' events: a matter of nanoseconds for all


class Flights:
    """The runs of one cache, those that may be followed among them.

    At most `waiting_max` calls wait for others; what comes beyond runs its function alone.
    """

    def __init__(self, *, waiting_max: int) -> None:
        self.waiting_max = waiting_max
        self.waiting = 0
        self.purges = 0  # ever, those that others have told among them
        self._lock = Lock()
        self._open: dict[str, Flight] = {}
        self._by_key: dict[str, set[Flight]] = {}  # also those that were given up or spoiled
        self._by_tag: dict[str, set[Flight]] = {}
        self._untagged: set[Flight] = set()

    def is_open(self, key: str) -> bool:
        return key in self._open

    def lead(
        self, key: str, tags: tuple[str, ...] | None, *, threaded: bool
    ) -> tuple[Flight, bool]:
        """A new run and True, or the open one that there is to follow and False.

        Who follows is counted as waiting until he calls `release`.  `tags` None: the run finds them
        itself, for `tag`.
        """
        with self._lock:
            flight = self._open.get(key)
            if flight is None:
                return self._begin(key, tags, threaded), True
            flight.waiting += 1
            self.waiting += 1
            return flight, False

    def release(self, flight: Flight) -> None:
        """Count one less who waits for `flight`."""
        with self._lock:
            flight.waiting -= 1
            self.waiting -= 1

    def is_to_follow(self, flight: Flight, *, threaded: bool) -> bool:
        """Whether who found `flight` can wait for it: it is of his kind, and not his own."""
        if flight.is_threaded is not threaded or self.waiting > self.waiting_max:
            return False
        if not threaded and flight.thread != get_ident():
            return False  # of another event loop, which cannot wake us
        return flight not in LEADING.get()

    def replace(self, key: str, tags: tuple[str, ...] | None, *, threaded: bool) -> Flight:
        """A new run, to be followed instead of the one that there may be."""
        with self._lock:
            return self._begin(key, tags, threaded)

    def tag(self, flight: Flight, tags: tuple[str, ...]) -> None:
        """The tags of a run that did not know them: spoiled where one was purged meanwhile."""
        with self._lock:
            purged, flight.purged, flight.tags = flight.purged, None, tags
            self._untagged.discard(flight)
            if flight.is_closed:
                return
            for tag in tags:
                self._by_tag.setdefault(tag, set()).add(flight)
            if purged is not None and not purged.isdisjoint(tags):
                self._spoil(flight)

    def close(self, flight: Flight) -> None:
        """Forget a run that has ended; twice does nothing."""
        if flight.is_closed:
            return
        flight.is_closed = True
        with self._lock:
            self._give_up(flight)
            self._untagged.discard(flight)
            for index, names in ((self._by_key, (flight.key,)), (self._by_tag, flight.tags)):
                for name in names:
                    flights = index.get(name)
                    if flights is not None:
                        flights.discard(flight)
                        if not flights:
                            del index[name]

    def give_up(self, flight: Flight) -> None:
        """Let nobody follow this run any more."""
        with self._lock:
            self._give_up(flight)

    def spoil(self, *, keys: Iterable[str] = (), tags: Iterable[str] = ()) -> None:
        """Let the runs of `keys`, and those with any of `tags`, not be kept nor followed."""
        tags = tuple(tags)
        with self._lock:
            self.purges += 1
            if not self._by_key:
                return
            for index, names in ((self._by_key, keys), (self._by_tag, tags)):
                for name in names:
                    for flight in index.get(name, ()):
                        self._spoil(flight)
            for flight in self._untagged if tags else ():
                self._note_purged(flight, tags)

    def spoil_matching(self, matches: Callable[[str], bool]) -> None:
        """The same for the runs whose keys match."""
        with self._lock:
            self.purges += 1
            if not self._by_key:
                return
            for key, flights in self._by_key.items():
                if matches(key):
                    for flight in flights:
                        self._spoil(flight)

    def _begin(self, key: str, tags: tuple[str, ...] | None, threaded: bool) -> Flight:
        flight = self._open[key] = Flight(key, tags or (), threaded=threaded)
        self._by_key.setdefault(key, set()).add(flight)
        if tags is None:
            flight.purged = set()
            self._untagged.add(flight)
        for tag in flight.tags:
            self._by_tag.setdefault(tag, set()).add(flight)
        return flight

    def _note_purged(self, flight: Flight, tags: tuple[str, ...]) -> None:
        """Nobody knows yet if it is concerned: who comes from now on asks anew."""
        assert flight.purged is not None  # noqa: S101 - it has no tags yet
        flight.purged.update(tags)
        if len(flight.purged) > PURGED_MAX:
            flight.is_spoiled = True
        self._give_up(flight)

    def _spoil(self, flight: Flight) -> None:
        flight.is_spoiled = True
        self._give_up(flight)

    def _give_up(self, flight: Flight) -> None:
        if self._open.get(flight.key) is flight:
            del self._open[flight.key]

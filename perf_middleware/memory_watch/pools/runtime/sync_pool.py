"""A pool for threads.

One lock is held while something is decided, never while an object is made, checked, reset or
closed.  Each waiter sleeps on a lock of its own, so that the one who is first in line is woken and
no other.

A finalizer or a signal handler may come in the middle of a step, in the thread that has the lock.
What it gives back then is put by and given back when the step is over; anything else it asks for is
a RuntimeError, where it would wait for itself for ever.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.clock import monotonic_us
from perf_middleware.errors import PoolClosedError
from perf_middleware.memory_watch.pools.figures import POOL_CLOSED, TRIMMED
from perf_middleware.memory_watch.pools.options import US_PER_S, PoolOptions, whole_us
from perf_middleware.memory_watch.pools.runtime.base import Pool, caller
from perf_middleware.memory_watch.pools.runtime.loans import Loan
from perf_middleware.memory_watch.pools.runtime.step_lock import StepLock
from perf_middleware.memory_watch.pools.slots import LEFT, READY, TURNED_AWAY, WAITING
from perf_middleware.memory_watch.pools.state import nothing
from perf_middleware.memory_watch.pools.steps import CHECKING, CLOSE, CREATE, RESET

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from perf_middleware.clock import Clock
    from perf_middleware.memory_watch.pools.slots import Slot, Ticket
    from perf_middleware.memory_watch.pools.steps import Steps

T = TypeVar("T")
R = TypeVar("R")

_getpid = os.getpid


class ObjectPool(Pool[T]):
    """Keeps up to `size_max` objects, and lends each to one thread at a time.

        with ObjectPool(lambda: bytearray(1 << 20), size_max=4) as pool:
            with pool.lend() as buffer:
                ...

    A call of `create`, `reset`, `check` or `close` cannot be ended from outside: give what it calls
    a timeout.  A check that raises or answers something false, None apart, means that the object is
    replaced; it is asked where an object was idle for `check_after_idle_s`, or an exception passed
    while it was lent.  Who waits is served in the order of asking.  `names_holders`: `status()`
    names the line that holds an object.
    """

    def __init__(
        self,
        create: Callable[[], T],
        *,
        size_max: int,
        size_min: int = 0,
        reset: Callable[[T], Any] | None = None,
        check: Callable[[T], Any] | None = None,
        close: Callable[[T], Any] | None = None,
        check_after_idle_s: float = 5.0,
        idle_s_max: float | None = None,
        age_s_max: float | None = None,
        uses_max: int | None = None,
        wait_s: float | None = 30.0,
        drain_s: float = 10.0,
        waiting_max: int = 1_000,
        names_holders: bool = False,
        name: str = "pool",
        clock: Clock = monotonic_us,
    ) -> None:
        options = PoolOptions(
            name=name,
            size_max=size_max,
            size_min=size_min,
            waiting_max=waiting_max,
            wait_us=whole_us(wait_s),
            idle_us_max=whole_us(idle_s_max),
            age_us_max=whole_us(age_s_max),
            uses_max=uses_max,
            check_after_idle_us=None if check is None else whole_us(check_after_idle_s),
        )
        super().__init__(
            {CREATE: create, RESET: reset, CHECKING: check, CLOSE: close},
            options,
            names_holders=names_holders,
            drain_s=drain_s,
            clock=clock,
        )
        self._has_idle_max = idle_s_max is not None or age_s_max is not None
        self._lock = StepLock()
        self._given_late: deque[tuple[T, bool, bool]] = deque()
        self._held = _Held(self)
        self._state.on_lost = self._reap_if_free

    # --- opened and closed ----------------------------------------------------------------------

    def open(self) -> None:
        """Lend from now on; `size_min` objects are made first.

        Raises what create raises, and is not open then; RuntimeError where it is open, or objects
        are still out since it was.
        """
        state = self._state
        with self._held:
            if state.is_open or state.size:
                raise RuntimeError(f"{self.name} is open, or objects of it are still out")
            state.on_empty = nothing
            state.is_open = True
        try:
            while True:
                with self._held:
                    slot = state.new_slot() if state.size < self._options.size_min else None
                if slot is None:
                    break
                self._run(self._steps.making(slot))
        except BaseException:
            self.close(drain_s=0)
            raise

    def close(self, *, drain_s: float | None = None) -> int:
        """Lend nothing more, close what is idle, and wait for what is lent for `drain_s`.

        Returns how many are out after that: they are closed when they come back.  Those who wait
        for an object get PoolClosedError.
        """
        state = self._state
        with self._held:
            was_open = state.is_open
            state.close(self._clock())
        while self._discard_coldest(POOL_CLOSED):
            pass
        emptied: SimpleQueue[None] = SimpleQueue()  # an Event cannot be set by a finalizer
        with self._held:
            if not state.size:
                return 0
            before = state.on_empty

            def tell() -> None:
                emptied.put(None)
                before()

            state.on_empty = tell
        with suppress(Empty):
            drain_s = self._drain_s if drain_s is None else drain_s
            emptied.get(timeout=min(max(0.0, drain_s), TIMEOUT_MAX))
        left = state.size
        if left and was_open:
            self._told_still_lent()
        return left

    def __enter__(self) -> ObjectPool[T]:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- lent and given back --------------------------------------------------------------------

    def lend(self, *, timeout_s: float | None = None) -> Loan[T]:
        """`with pool.lend() as thing:` gives it back however the block ends."""
        return Loan(self, timeout_s)

    def acquire(self, *, timeout_s: float | None = None) -> T:
        """An object, lent until `release`.

        `timeout_s` None is the pool's `wait_s`, 0 does not wait, math.inf waits for good; making
        one is begun in that time, and may take longer.  Raises PoolTimeoutError,
        PoolLineFullError, PoolClosedError, and what create raises.
        """
        state, ticket = self._state, None
        with self._held:
            now_us = self._clock()
            slot = state.take(now_us)
            if slot is not None and slot.todo == READY:
                if self._names_holders:
                    slot.holder = caller()
                return state.claim(slot, now_us)
            until_us = self._until_us(timeout_s, now_us)
            if slot is None:
                if until_us is not None and until_us <= now_us:
                    raise self._timed_out("wait", 0)
                waker = Lock()
                waker.acquire()
                ticket = state.join(waker.release, now_us)
        if ticket is not None:
            slot = self._wait(ticket, waker, until_us)
        return self._obtain(slot, until_us)  # type: ignore[arg-type]

    def release(self, thing: T, *, broken: bool = False, suspect: bool = False) -> None:
        """Give `thing` back: it is reset, and goes to whoever waits longest.

        `broken`: it is closed instead.  `suspect`: it is checked before it is used again.  Raises
        ValueError where it is not lent.  Any thread may do so, and any finalizer.
        """
        if self._lock.is_own():
            self._given_late.append((thing, broken, suspect))
            return
        state, cold = self._state, None
        with self._held:
            now_us = self._clock()
            try:
                slot = state.give_back(thing)
            except ValueError:
                if self._is_of_parent(thing):
                    return
                raise
            if suspect:
                slot.is_suspect = True
            is_back = not broken and not self._resets and state.put_back(slot, now_us)
            if is_back and self._has_idle_max:
                cold = state.cold(now_us)
        if not is_back:
            self._run(self._steps.giving_back(slot, is_broken=broken))
        elif cold is not None:
            self._run(self._steps.discarding(cold))

    def trim(self, share: float = 1.0) -> int:
        """Close this share of the idle objects, those first that were idle longest, and any that
        was so for `idle_s_max`; returns how many.  For when memory is short.
        """
        with self._held:
            surplus = self._state.surplus(share)
        count = 0
        while count < surplus and self._discard_coldest(TRIMMED):
            count += 1
        while True:
            with self._held:
                cold = self._state.cold(self._clock())
            if cold is None:
                return count
            self._run(self._steps.discarding(cold))
            count += 1

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture: sizes, counts, and who has held an object for how long."""
        with self._held:
            return super().status()

    # --- waiting --------------------------------------------------------------------------------

    def _wait(self, ticket: Ticket[T], waker: Any, until_us: int | None) -> Slot[T]:
        state = self._state
        left_s = -1.0
        if until_us is not None:
            left_s = min(max(0.0, (until_us - self._clock()) / US_PER_S), TIMEOUT_MAX)
        try:
            waker.acquire(timeout=left_s)
        except BaseException:  # KeyboardInterrupt
            with self._held:
                slot = state.leave(ticket, self._clock())
            if slot is not None:
                self._run(self._steps.discarding(slot))
            raise
        with self._held:
            if ticket.state == WAITING:
                state.leave(ticket, self._clock())
            if ticket.state == TURNED_AWAY:
                raise PoolClosedError(self.name)
            if ticket.state == LEFT or ticket.slot is None:
                raise self._timed_out("wait", self._clock() - ticket.since_us)
            return ticket.slot

    def _obtain(self, slot: Slot[T], until_us: int | None) -> T:
        state, unused = self._state, None
        if self._names_holders:
            slot.holder = caller()
        with self._held:
            now_us = self._clock()
            if slot.todo == READY:
                return state.claim(slot, now_us)
            is_late = until_us is not None and until_us <= now_us
            if is_late:
                unused = state.pass_on(slot, now_us)
        if not is_late:
            return self._run(self._steps.obtaining(slot), until_us)
        if unused is not None:
            self._run(self._steps.discarding(unused))
        raise self._timed_out("create", 0)

    def _discard_coldest(self, why: int) -> bool:
        with self._held:
            slot = self._state.coldest(why)
        if slot is None:
            return False
        self._run(self._steps.discarding(slot))
        return True

    def _reap_if_free(self) -> None:
        """An object was forgotten by whoever had it.

        The interpreter may call this in a thread that has the lock: then whoever has it reaps, when
        it is free again.
        """
        while self._state.lost and self._lock.begin(waits=False):
            try:
                self._state.reap(self._clock())
            finally:
                self._lock.end()

    def _give_late(self) -> None:
        """Give back what a finalizer did in the middle of a step; who made that hears no errors."""
        while self._given_late:
            try:
                thing, broken, suspect = self._given_late.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                self.release(thing, broken=broken, suspect=suspect)
            except Exception as error:  # noqa: BLE001 - it was not lent
                self._note_failure("release", error)
                self._tell()

    def _begin_in_child(self) -> None:
        self._lock = StepLock()  # another thread of the parent may have had the old one
        self._given_late.clear()
        super()._begin_in_child()

    # --- calls ----------------------------------------------------------------------------------

    def _run(self, steps: Steps[R], until_us: int | None = None) -> R:
        """Make the calls that `steps` asks for; they hear of each exception, and decide."""
        go_on: Callable[[Any], Any] = steps.send
        what: Any = None
        try:
            while True:
                with self._held:
                    step, arguments = go_on(what)
                try:
                    self._limit_us(step, until_us)
                    what = self._functions[step](*arguments)
                except BaseException as error:  # noqa: BLE001 - the steps raise it again
                    go_on, what = steps.throw, error
                else:
                    go_on = steps.send
        except StopIteration as done:
            result: R = done.value
            return result
        finally:
            what = arguments = None  # no frame keeps an object alive that is lost
            if self._untold:
                self._tell()


class _Held:
    """The pool's lock; what was lost while it was held is taken back when it is free."""

    __slots__ = ("_pool",)

    def __init__(self, pool: ObjectPool[Any]) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        pool = self._pool
        if _getpid() != pool._pid:  # noqa: SLF001 - two halves of one thing
            pool._begin_in_child()  # noqa: SLF001
        if not pool._lock.begin():  # noqa: SLF001
            raise RuntimeError(f"{pool.name} is asked by a finalizer in the middle of its own step")

    def __exit__(self, *_: object) -> None:
        pool = self._pool
        pool._lock.end()  # noqa: SLF001
        if pool._state.lost:  # noqa: SLF001
            pool._reap_if_free()  # noqa: SLF001
        if pool._given_late:  # noqa: SLF001
            pool._give_late()  # noqa: SLF001

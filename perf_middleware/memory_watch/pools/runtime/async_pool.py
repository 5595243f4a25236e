"""A pool for async code, on asyncio (uvloop) and trio.

Everything happens on the loop that it was opened on, and between two awaits, so there is no lock.
Taking and giving back an idle object that is neither checked nor reset awaits nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import anyio

from perf_middleware.clock import monotonic_us
from perf_middleware.errors import PoolClosedError
from perf_middleware.memory_watch.pools.figures import INTERRUPTED, POOL_CLOSED, TRIMMED
from perf_middleware.memory_watch.pools.options import US_PER_S, PoolOptions, whole_us
from perf_middleware.memory_watch.pools.runtime.base import Pool, caller
from perf_middleware.memory_watch.pools.runtime.loans import AsyncLoan
from perf_middleware.memory_watch.pools.slots import LEFT, READY, TURNED_AWAY, WAITING
from perf_middleware.memory_watch.pools.state import nothing
from perf_middleware.memory_watch.pools.steps import CHECKING, CLOSE, CREATE, RESET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from perf_middleware.clock import Clock
    from perf_middleware.memory_watch.pools.arguments import AsyncPoolArguments
    from perf_middleware.memory_watch.pools.slots import Slot, Ticket
    from perf_middleware.memory_watch.pools.steps import Call, Steps

T = TypeVar("T")
R = TypeVar("R")

_getpid = os.getpid


class AsyncObjectPool(Pool[T]):
    """Keeps up to `size_max` objects, and lends each to one task at a time.

        async with AsyncObjectPool(connect, size_max=10, close=lambda c: c.close()) as pool:
            async with pool.lend() as connection:
                ...

    `create`, `reset`, `check` and `close` may be async or not; each call has `step_s_max`.  A check
    that raises or answers something false, None apart, means that the object is replaced; it is
    asked where an object was idle for `check_after_idle_s`, or an exception passed while it was
    lent.  Who waits is served in the order of asking.  `names_holders`: `status()` names the line
    that holds an object.
    """

    @overload
    def __init__(
        self, create: Callable[[], Awaitable[T]], **rest: Unpack[AsyncPoolArguments[T]]
    ) -> None: ...
    @overload
    def __init__(self, create: Callable[[], T], **rest: Unpack[AsyncPoolArguments[T]]) -> None: ...
    def __init__(
        self,
        create: Callable[[], Awaitable[T]] | Callable[[], T],
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
        step_s_max: float = 10.0,
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
            step_us=round(step_s_max * US_PER_S),
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._soon: Callable[..., object] | None = None
        self._emptied: anyio.Event | None = None
        self._state.on_lost = self._reap_soon

    # --- opened and closed ----------------------------------------------------------------------

    async def open(self) -> None:
        """Lend from now on, on this loop; `size_min` objects are made first.

        Raises what create raises, and is not open then; RuntimeError where it is open, or objects
        are still out since it was.
        """
        if _getpid() != self._pid:
            self._begin_in_child()
        state = self._state
        state.reap(self._clock())  # what was lost when there was no loop to hear of it
        if state.is_open or state.size:
            raise RuntimeError(f"{self.name} is open, or objects of it are still out")
        try:
            self._loop = asyncio.get_running_loop()
            self._soon = self._loop.call_soon_threadsafe
        except RuntimeError:
            import trio

            self._loop = None
            self._soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._emptied = None
        state.on_empty = nothing
        state.is_open = True
        try:
            while state.size < self._options.size_min and (slot := state.new_slot()) is not None:
                await self._run(self._steps.making(slot))
        except BaseException:
            await self.close(drain_s=0)
            raise

    async def close(self, *, drain_s: float | None = None) -> int:
        """Lend nothing more, close what is idle, and wait for what is lent for `drain_s`.

        Returns how many are out after that: they are closed when they come back.  Those who wait
        for an object get PoolClosedError.  All idle ones together have `step_s_max`.
        """
        state, now_us = self._state, self._clock()
        was_open = state.is_open
        state.close(now_us)
        until_us = now_us + self._options.step_us
        while (slot := state.coldest(POOL_CLOSED)) is not None:
            await self._run(self._steps.discarding(slot), until_us)
        if not state.size:
            return 0
        if self._emptied is None:
            self._emptied = anyio.Event()
            state.on_empty = self._emptied.set
        with anyio.move_on_after(self._drain_s if drain_s is None else drain_s):
            await self._emptied.wait()
        if state.size and was_open:
            self._told_still_lent()
        return state.size

    async def __aenter__(self) -> AsyncObjectPool[T]:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- lent and given back --------------------------------------------------------------------

    def lend(self, *, timeout_s: float | None = None) -> AsyncLoan[T]:
        """`async with pool.lend() as thing:` gives it back however the block ends."""
        return AsyncLoan(self, timeout_s)

    async def acquire(self, *, timeout_s: float | None = None) -> T:
        """An object, lent until `release`.

        `timeout_s` is for the whole of it, making one included: None is the pool's `wait_s`, 0 does
        not wait, math.inf waits for good.  Raises PoolTimeoutError, PoolLineFullError,
        PoolClosedError, and what create raises.
        """
        if _getpid() != self._pid:
            self._begin_in_child()
        state, now_us = self._state, self._clock()
        slot = state.take(now_us)
        if slot is not None and slot.todo == READY:
            if self._names_holders:
                slot.holder = caller()
            return state.claim(slot, now_us)
        return await self._obtain(slot, now_us, self._until_us(timeout_s, now_us))

    async def release(self, thing: T, *, broken: bool = False, suspect: bool = False) -> None:
        """Give `thing` back: it is reset, and goes to whoever waits longest.

        `broken`: it is closed instead.  `suspect`: it is checked before it is used again.  Raises
        ValueError where it is not lent.  In a cancelled scope it is done all the same.
        """
        if _getpid() != self._pid:
            self._begin_in_child()
        state, now_us = self._state, self._clock()
        try:
            slot = state.give_back(thing)
        except ValueError:
            if self._is_of_parent(thing):
                return
            raise
        if suspect:
            slot.is_suspect = True
        if broken or self._resets or not state.put_back(slot, now_us):
            await self._run(self._steps.giving_back(slot, is_broken=broken))
        elif self._has_idle_max and (cold := state.cold(now_us)) is not None:
            await self._run(self._steps.discarding(cold))

    async def trim(self, share: float = 1.0) -> int:
        """Close this share of the idle objects, those first that were idle longest, and any that
        was so for `idle_s_max`; returns how many.  For when memory is short.
        """
        count = 0
        for _ in range(self._state.surplus(share)):
            slot = self._state.coldest(TRIMMED)
            if slot is None:
                break
            await self._run(self._steps.discarding(slot))
            count += 1
        while (slot := self._state.cold(self._clock())) is not None:
            await self._run(self._steps.discarding(slot))
            count += 1
        return count

    # --- waiting --------------------------------------------------------------------------------

    async def _obtain(self, slot: Slot[T] | None, now_us: int, until_us: int | None) -> T:
        if slot is None:
            if until_us is not None and until_us <= now_us:
                raise self._timed_out("wait", 0)
            if self._loop is None:
                slot = await self._wait_anywhere(now_us, until_us)
            else:
                slot = await self._wait_on_asyncio(self._loop, now_us, until_us)
        if self._names_holders:
            slot.holder = caller()
        if slot.todo == READY:
            return self._state.claim(slot, self._clock())
        if until_us is not None and until_us <= self._clock():
            unused = self._state.pass_on(slot, self._clock())
            if unused is not None:
                await self._run(self._steps.discarding(unused))
            raise self._timed_out("create", 0)
        return await self._run(self._steps.obtaining(slot), until_us)

    async def _wait_on_asyncio(
        self, loop: asyncio.AbstractEventLoop, now_us: int, until_us: int | None
    ) -> Slot[T]:
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        ticket = self._state.join(wake, now_us)
        timer = None
        if until_us is not None:
            timer = loop.call_later((until_us - now_us) / US_PER_S, self._expire, ticket)
        try:
            await future
        except BaseException as error:
            await self._give_up(ticket, error)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return self._granted(ticket)

    async def _wait_anywhere(self, now_us: int, until_us: int | None) -> Slot[T]:
        event = anyio.Event()
        ticket = self._state.join(event.set, now_us)
        try:
            with anyio.move_on_after(None if until_us is None else (until_us - now_us) / US_PER_S):
                await event.wait()
        except BaseException as error:
            await self._give_up(ticket, error)
            raise
        if ticket.state == WAITING:
            self._expire(ticket)
        return self._granted(ticket)

    def _expire(self, ticket: Ticket[T]) -> None:
        if ticket.state == WAITING:
            self._state.leave(ticket, self._clock())
            ticket.wake()

    def _granted(self, ticket: Ticket[T]) -> Slot[T]:
        if ticket.state == TURNED_AWAY:
            raise PoolClosedError(self.name)
        if ticket.state == LEFT or ticket.slot is None:
            raise self._timed_out("wait", self._clock() - ticket.since_us)
        return ticket.slot

    async def _give_up(self, ticket: Ticket[T], error: BaseException) -> None:
        """Its task was cancelled while it waited, or just when it was granted a slot."""
        slot = self._state.leave(ticket, self._clock())
        if slot is None:
            return
        if isinstance(error, GeneratorExit):
            self._let_go(slot)
        else:
            await self._run(self._steps.discarding(slot))

    def let_go(self, thing: T) -> None:
        """`thing` was lent to a coroutine that nobody awaits any more."""
        self._let_go(self._state.give_back(thing))

    def _let_go(self, slot: Slot[T]) -> None:
        """In a coroutine that is thrown away nothing can be awaited: its object is not closed, that
        is left to its own finalizer.
        """
        slot.why = INTERRUPTED
        self._state.empty(slot)
        self._state.drop(slot, self._clock())

    def _reap_soon(self) -> None:
        """An object was forgotten by whoever had it: perhaps in another thread."""
        try:
            if self._soon is not None:
                self._soon(self._reap)
        except RuntimeError:  # the loop is closed: nobody waits for it
            pass

    def _reap(self) -> None:
        self._state.reap(self._clock())

    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        self._state.is_open = False  # its loop is the parent's: it has to be opened again

    # --- calls ----------------------------------------------------------------------------------

    async def _run(self, steps: Steps[R], until_us: int | None = None) -> R:
        """Make the calls that `steps` asks for; they hear of each exception, and decide."""
        try:
            call = steps.send(None)
            while True:
                try:
                    answer = await self._call(call, until_us)
                except GeneratorExit as error:
                    abandon(steps, error)
                    raise
                except BaseException as error:  # noqa: BLE001 - the steps raise it again
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as done:
            result: R = done.value
            return result
        finally:
            if self._untold:
                self._tell()

    async def _call(self, call: Call, until_us: int | None) -> Any:
        step, arguments = call
        limit_us = self._limit_us(step, until_us)
        answer = self._functions[step](*arguments)
        if answer is None or not inspect.isawaitable(answer):
            return answer
        deadline_s = anyio.current_time() + limit_us / US_PER_S
        # What comes back is reset and closed also where the task is cancelled.
        with anyio.CancelScope(deadline=deadline_s, shield=step in (RESET, CLOSE)):
            return await answer
        raise self._timed_out(step, limit_us)


def abandon(steps: Steps[Any], error: GeneratorExit) -> None:
    """Let `steps`, which stand at a call, account for their slot without any further one: nothing
    can be awaited in a coroutine that is thrown away.
    """
    try:
        while True:
            steps.throw(error)
    except (GeneratorExit, StopIteration):
        pass

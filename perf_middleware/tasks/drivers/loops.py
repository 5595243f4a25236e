"""The event loop that runs here: what code without a task group needs of asyncio and of trio.

A call that many wait for belongs to none of them, so it runs beside them all: as a task of the loop
on asyncio (uvloop too), as a system task on trio.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    import trio

S = TypeVar("S")


class Waiter(Protocol):
    """What one asker awaits; `asyncio.Future` is one."""

    def set_result(self, result: None, /) -> None:
        """Wake the asker."""

    def done(self) -> bool:
        """Whether it was woken, or has gone."""

    def cancel(self) -> object:
        """The asker has gone."""

    def __await__(self) -> Generator[Any, Any, None]: ...


class Loop(Protocol):
    """One kind of event loop; every method is for the loop that runs here."""

    def waiter(self) -> Waiter:
        """One to await."""

    def spawn(
        self, run: Callable[[], Coroutine[Any, Any, None]], context: Context
    ) -> Callable[[], object]:
        """Run it beside everything, in `context`; what it gives cancels it."""

    def later(self, delay_s: float, call: Callable[[], None]) -> Callable[[], object]:
        """Call after `delay_s`, 0 for the next turn of the loop; what it gives takes that back."""

    def soon_if_open(self, call: Callable[[], None]) -> None:
        """Call in the next turn, unless the loop is ending."""

    def poster(self) -> Callable[[Callable[[], object]], None]:
        """How any thread hands a call to this loop; the call is lost where that has ended."""


class AsyncioLoop:
    """asyncio and uvloop."""

    def waiter(self) -> Waiter:
        """One to await."""
        return asyncio.get_running_loop().create_future()

    def spawn(
        self, run: Callable[[], Coroutine[Any, Any, None]], context: Context
    ) -> Callable[[], object]:
        """A task of the loop; whoever spawns keeps what cancels it, and the task with that."""
        return asyncio.get_running_loop().create_task(run(), context=context).cancel

    def later(self, delay_s: float, call: Callable[[], None]) -> Callable[[], object]:
        """A timer of the loop."""
        loop = asyncio.get_running_loop()
        return (loop.call_later(delay_s, call) if delay_s > 0 else loop.call_soon(call)).cancel

    def soon_if_open(self, call: Callable[[], None]) -> None:
        """Call in the next turn; a loop that is ending turns no more."""
        asyncio.get_running_loop().call_soon(call)

    def poster(self) -> Callable[[Callable[[], object]], None]:
        """By `call_soon_threadsafe`."""
        loop = asyncio.get_running_loop()

        def post(call: Callable[[], object]) -> None:
            try:
                loop.call_soon_threadsafe(call)
            except RuntimeError:  # closed: nobody is there to be told
                return

        return post


class TrioWaiter:
    """What a future is to asyncio."""

    __slots__ = ("_event",)

    def __init__(self, event: trio.Event) -> None:
        self._event = event

    def set_result(self, result: None, /) -> None:
        """Wake the asker."""
        self._event.set()

    def done(self) -> bool:
        """Whether it was woken, or has gone."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Nobody is to be woken."""
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._event.wait().__await__()


class TrioLoop:
    """trio: a system task for each call, and for each timer."""

    def waiter(self) -> Waiter:
        """One to await."""
        import trio

        return TrioWaiter(trio.Event())

    def spawn(
        self, run: Callable[[], Coroutine[Any, Any, None]], context: Context
    ) -> Callable[[], object]:
        """A system task with a scope of its own; trio cancels it when its main task ends."""
        import trio

        scope = trio.CancelScope()

        async def within() -> None:
            with scope:
                await run()

        trio.lowlevel.spawn_system_task(within, context=context)
        return scope.cancel

    def later(self, delay_s: float, call: Callable[[], None]) -> Callable[[], object]:
        """A system task that sleeps first."""
        from contextvars import Context

        import trio

        async def run() -> None:
            if delay_s > 0:
                await trio.sleep(delay_s)
            else:
                await trio.lowlevel.checkpoint()
            call()

        return self.spawn(run, Context())

    def soon_if_open(self, call: Callable[[], None]) -> None:
        """Nothing: only the end of trio's run cancels a system task from outside."""

    def poster(self) -> Callable[[Callable[[], object]], None]:
        """By the token of the run."""
        import trio

        token = trio.lowlevel.current_trio_token()

        def post(call: Callable[[], object]) -> None:
            try:
                token.run_sync_soon(call)
            except trio.RunFinishedError:
                return

        return post


ASYNCIO = AsyncioLoop()
TRIO = TrioLoop()


def loop_here(doing: str) -> tuple[object, Loop]:
    """The loop that runs in this thread, as a key that can be held weakly, and its kind.

    Raises RuntimeError, which names what was `doing`, where there is none.
    """
    try:
        return asyncio.get_running_loop(), ASYNCIO
    except RuntimeError:
        trio = sys.modules.get("trio")
        if trio is not None:
            try:
                return trio.lowlevel.current_trio_token(), TRIO
            except RuntimeError:
                pass
    raise RuntimeError(
        f"{doing} needs a running event loop (asyncio or trio): from a thread that the app has "
        "started, call it by anyio.from_thread.run"
    )


class PerLoop(Generic[S]):
    """One state for each event loop, made when it is first asked for, gone with the loop."""

    def __init__(self, make: Callable[[Loop], S], *, doing: str) -> None:
        self._make = make
        self._doing = doing
        self._states: WeakKeyDictionary[object, S] = WeakKeyDictionary()
        self._lock = threading.Lock()  # loops of several threads may come at once
        # Most processes have one loop: a comparison instead of a look-up.  Read and written whole.
        self._last: tuple[ref[object], S] | None = None

    def here(self) -> S:
        """The state of the loop that runs here.  Raises RuntimeError where none does."""
        loop, kind = loop_here(self._doing)
        last = self._last
        if last is not None and last[0]() is loop:
            return last[1]
        with self._lock:
            state = self._states.get(loop)
            if state is None:
                self._drop_closed_locked()
                state = self._states[loop] = self._make(kind)
        self._last = (ref(loop), state)
        return state

    def states(self) -> list[S]:
        """Those of all loops that are there."""
        with self._lock:
            return list(self._states.values())

    def _drop_closed_locked(self) -> None:
        # A loop that was closed in the middle of something is held by what it has left here.
        for loop in list(self._states):
            if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed():
                del self._states[loop]

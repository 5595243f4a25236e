"""From a thread onto the event loop: a call that is waited for, and given up when nobody answers.

    watch thread                            event loop
    call = home.call(function, left_s) ->   woken, a task begins `function`
    call.has_begun(...), call.is_over(...)  the task ends or is cancelled at its time
    gives up: it is not begun any more

Nothing runs on the loop meanwhile: it is woken by asyncio's `call_soon_threadsafe` or trio's
`run_sync_soon`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeAlias

import anyio

Wake: TypeAlias = Callable[[Callable[[], object]], object]
Spawn: TypeAlias = Callable[[Callable[[], Awaitable[None]]], object]


class NoLoopError(Exception):
    """The event loop has ended; no client sees it."""


class HomeLoop:
    """One event loop, as a thread sees it."""

    def __init__(self, wake: Wake, spawn: Spawn) -> None:
        self._wake = wake
        self._spawn = spawn

    def call(self, function: Callable[[], Any], *, left_s: float) -> LoopCall:
        """Let `function()` run on the loop soon, for `left_s` seconds at most from its beginning.

        Raises NoLoopError where the loop has ended.
        """
        call = LoopCall(function, left_s=left_s)

        def begin() -> None:
            try:
                self._spawn(call.run)
            except Exception:  # noqa: BLE001 - the loop is ending; trio would end with this error
                call.give_up()

        try:
            self._wake(begin)
        except Exception as exc:  # asyncio: RuntimeError; trio: RunFinishedError
            raise NoLoopError(str(exc)) from exc
        return call


class LoopCall:
    """One call on the loop, waited for by a thread."""

    def __init__(self, function: Callable[[], Any], *, left_s: float) -> None:
        self._function = function
        self._left_s = left_s
        self._lock = threading.Lock()
        self._given_up = False
        self._runs = False
        self._begun = threading.Event()
        self._done = threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None
        self.has_ended = False  # by itself: neither cancelled nor failed
        self.was_cut_off = False

    async def run(self) -> None:
        """On the loop."""
        with self._lock:
            if self._given_up:
                return
            self._runs = True
            self._begun.set()
        try:
            with anyio.move_on_after(self._left_s) as scope:
                answer = self._function()
                self.answer = await answer if isawaitable(answer) else answer
                self.has_ended = True
            self.was_cut_off = scope.cancelled_caught
        except Exception as exc:  # noqa: BLE001 - the caller's answer
            self.error = exc
        finally:
            self._done.set()

    def has_begun(self, timeout_s: float) -> bool:
        """Wait for so long whether it begins, or was given up."""
        return self._begun.wait(timeout_s)

    def is_kept(self) -> bool:
        """Whether it has begun; where not, it never will."""
        with self._lock:
            if not self._runs:
                self._given_up = True
            return self._runs

    def is_over(self, timeout_s: float) -> bool:
        """Wait for so long whether it ends, or was given up."""
        return self._done.wait(timeout_s)

    def give_up(self) -> None:
        """Let who waits go on at once; what was not begun will not be."""
        with self._lock:
            self._given_up = True
        self._begun.set()
        self._done.set()


def home_here() -> HomeLoop | None:
    """The running event loop of this thread; None where there is none."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            token = trio.lowlevel.current_trio_token()
        except RuntimeError:  # imported, and another loop runs
            pass
        else:
            # What a system task raises ends the whole run: `LoopCall.run` keeps it.
            return HomeLoop(token.run_sync_soon, trio.lowlevel.spawn_system_task)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    tasks: set[asyncio.Task[None]] = set()  # a loop itself does not hold its tasks

    def spawn(run: Callable[[], Any]) -> None:
        task = loop.create_task(run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return HomeLoop(loop.call_soon_threadsafe, spawn)

"""Worker processes that are ready for a call: started beside it, so that nobody leaves one behind.

anyio starts a process within the call that needs it, and forgets it where that call is cancelled
before the process has reported: each client who goes early would leave an interpreter behind.  So a
task of the loop starts it here.  Whoever goes meanwhile leaves a process for the next; there are
never more starts than there were callers at once, who hold a place each.  (One that dies while it
is idle is replaced by anyio, in the old way.)
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import anyio.to_process
from anyio.lowlevel import RunVar

from perf_middleware.tasks.drivers.loops import loop_here
from perf_middleware.tasks.drivers.worker_process import begin

if TYPE_CHECKING:
    from perf_middleware.tasks.drivers.loops import Loop, Waiter

IDLE_S_MAX: Final = anyio.to_process.WORKER_MAX_IDLE_TIME - 10
"""anyio ends the ones that are idle for longer, and lets nobody see which are left."""


UNLIMITED: Final[Any] = nullcontext()
"""In the place of anyio's limiter: what counts are the places, and it never waits.  So nobody is
cancelled after `take` and before anyio has a process in its hands, which it then kills."""


class _Wanted:
    """One call that waits for a process."""

    __slots__ = ("error", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.error: Exception | None = None


class ReadyProcesses:
    """How many of anyio's processes of this event loop are idle, in its order: last in, first out.

    Every `take` that returns is followed by one call of anyio's, and by `give_back` where the
    process is alive after it.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._idle_since: deque[float] = deque()
        self._wanted: deque[_Wanted] = deque()
        self._starting: dict[object, object] = {}  # each start, and what keeps its task

    async def take(self) -> None:
        """Wait until a process is ready, and have it.  Raises BrokenWorkerProcess."""
        await anyio.lowlevel.checkpoint_if_cancelled()  # anyio's call would go before it has one
        now = anyio.current_time()
        while self._idle_since and now - self._idle_since[0] > IDLE_S_MAX:
            self._idle_since.popleft()
        if self._idle_since:
            self._idle_since.pop()
            return
        wanted = _Wanted(self._loop.waiter())
        self._wanted.append(wanted)
        if len(self._starting) < len(self._wanted):
            start = object()
            self._starting[start] = None
            self._starting[start] = self._loop.spawn(lambda: self._start(start), Context())
        try:
            await wanted.waiter
        except BaseException:
            if wanted in self._wanted:
                self._wanted.remove(wanted)
            elif wanted.error is None:  # it has one already
                self.give_back()
            raise
        if wanted.error is not None:
            raise wanted.error

    def give_back(self) -> None:
        """It is alive: for who waits, or idle."""
        if self._wanted:
            self._wanted.popleft().waiter.set_result(None)
        else:
            self._idle_since.append(anyio.current_time())

    async def _start(self, start: object) -> None:
        error: Exception | None = None
        try:
            await anyio.to_process.run_sync(begin, limiter=UNLIMITED)
        except Exception as failure:  # noqa: BLE001 - who waits gets it
            error = failure
        finally:
            del self._starting[start]
        if error is None:
            self.give_back()
        elif self._wanted:
            wanted = self._wanted.popleft()
            wanted.error = error
            wanted.waiter.set_result(None)


OWN: Final[RunVar[ReadyProcesses]] = RunVar("perf_middleware_ready_processes")


def ready_processes() -> ReadyProcesses:
    """Those of this event loop: anyio has one pool for each."""
    try:
        return OWN.get()
    except LookupError:
        _, loop = loop_here("to_process")
        ready = ReadyProcesses(loop)
        OWN.set(ready)
        return ready

"""`to_thread`: sync calls in worker threads of their own bound, apart from those of endpoints.

A thread cannot be stopped.  Its place is taken until it has ended, whoever has gone meanwhile: the
bound holds for threads that run, not for callers that wait.  (anyio's own gives the place back at
once; so a slow back end, asked with a timeout, is asked by ever more threads.)
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from perf_middleware.clock import monotonic_us
from perf_middleware.tasks.concurrency.errors import WorkersTimeoutError
from perf_middleware.tasks.concurrency.runtime.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.concurrency.figures import WorkersReading
    from perf_middleware.tasks.concurrency.runtime.places import LoopPlaces

T = TypeVar("T")

LIMIT_MAX: Final = 32  # as many as concurrent.futures takes at most, for work that waits

OURS: Final[RunVar[anyio.CapacityLimiter]] = RunVar("perf_middleware_unlimited")


class WorkerThreads:
    """`await threads.run(f, 1, 2)`: at most `limit` of them in each event loop."""

    def __init__(
        self,
        *,
        limit: int,
        waiting_max: int = 10_000,
        name: str = "worker threads",
        clock: Clock = monotonic_us,
    ) -> None:
        self._places = Places(name=name, limit=limit, waiting_max=waiting_max, clock=clock)
        self._clock = clock

    async def run(
        self,
        function: Callable[..., T],
        *args: Any,
        wait_s: float | None = None,
        timeout_s: float | None = None,
        abandon_on_cancel: bool = False,
    ) -> T:
        """The result of `function(*args)`, run in a thread with a copy of the contextvars.

        Waits at most `wait_s` for a thread and `timeout_s` for the result; None for no limit.  A
        cancellation waits for the thread's end, unless `abandon_on_cancel` or `timeout_s` is given:
        then, and always on asyncio's own `Task.cancel()`, the thread goes on alone, and its place
        is taken until it has ended.  Changes of contextvars stay in the thread.

        Raises what it raises, WorkersBusyError, WorkersTimeoutError.
        """
        places = self._places
        call = _Call(function, args)
        here = await places.take(call, wait_s)
        began_us = self._clock()
        may_leave = abandon_on_cancel or timeout_s is not None
        try:
            with anyio.move_on_after(timeout_s):
                # A limiter of ours without a limit: what counts are the places.
                return await anyio.to_thread.run_sync(
                    call.run, abandon_on_cancel=may_leave, limiter=_unlimited()
                )
        except Exception:
            places.counts.failed += 1
            raise
        finally:
            places.counts.run_us += self._clock() - began_us
            if call.leave(here):
                places.counts.abandoned += 1
        places.counts.timeouts += 1
        raise WorkersTimeoutError(places.name, "run", timeout_s or 0.0)

    def reading(self) -> WorkersReading:
        """The figures by now."""
        return self._places.reading()


class _Call:
    """One call, and who gives its place back: the loop, or the thread where that goes on alone."""

    __slots__ = ("_args", "_begin", "_function", "_give_back", "_has_ended", "_post")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        # Whoever pops the one token may do it; a pop is atomic, so no lock is needed.
        self._begin = [True]
        self._give_back = [True]
        self._has_ended = False
        self._post: Callable[[], object] | None = None

    def run(self) -> Any:
        """In the thread."""
        try:
            self._begin.pop()
        except IndexError:
            return None  # the caller has gone before it began
        try:
            return self._function(*self._args)
        finally:
            self._has_ended = True
            post = self._post
            if post is not None and self._took(self._give_back):
                post()

    def leave(self, here: LoopPlaces) -> bool:
        """On the loop, when the caller goes: whether the thread goes on without it."""

        def release() -> None:
            here.limiter.release_on_behalf_of(self)

        if not self._is_over() and not self._took(self._begin):
            post_here = here.loop.poster()
            self._post = lambda: post_here(release)
            if not self._is_over():
                return True  # the thread gives it back: it looks for _post after it has ended
            if not self._took(self._give_back):
                return False  # it has done so in this very moment
        release()
        return False

    def _is_over(self) -> bool:
        return self._has_ended  # the thread sets it at any moment

    @staticmethod
    def _took(token: list[bool]) -> bool:
        try:
            return token.pop()
        except IndexError:
            return False


def _unlimited() -> anyio.CapacityLimiter:
    try:
        return OURS.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(math.inf)
        OURS.set(limiter)
        return limiter


OWN: Final[RunVar[WorkerThreads]] = RunVar("perf_middleware_threads")


def default_threads() -> WorkerThreads:
    """Those of this event loop that `to_thread` uses where it is given none."""
    try:
        return OWN.get()
    except LookupError:
        threads = WorkerThreads(limit=min(LIMIT_MAX, (os.cpu_count() or 1) + 4))
        OWN.set(threads)
        return threads


async def to_thread(
    function: Callable[..., T],
    *args: Any,
    workers: WorkerThreads | None = None,
    wait_s: float | None = None,
    timeout_s: float | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """`WorkerThreads.run` of `workers`, or of this event loop's own."""
    return await (workers or default_threads()).run(
        function, *args, wait_s=wait_s, timeout_s=timeout_s, abandon_on_cancel=abandon_on_cancel
    )

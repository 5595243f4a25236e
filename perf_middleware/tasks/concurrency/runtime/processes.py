"""`to_process`: calls in worker processes, started afresh and never forked; one may die.

anyio's worker processes do the work: each is a new interpreter (`python -m anyio.to_process`), runs
one call at a time and stays for the next.  One that dies takes the one call with it that it ran; a
pool of concurrent.futures would break all of them, and could stop none.
"""

from __future__ import annotations

import multiprocessing  # noqa: F401 - makes `__mp_main__`, as workers name the main module
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_process
from anyio.lowlevel import RunVar

from perf_middleware.clock import monotonic_us
from perf_middleware.tasks.concurrency.errors import (
    DIED,
    NOT_STARTED,
    WorkerDiedError,
    WorkersTimeoutError,
)
from perf_middleware.tasks.concurrency.runtime.places import Places
from perf_middleware.tasks.concurrency.runtime.starting import UNLIMITED, ready_processes
from perf_middleware.tasks.drivers.worker_process import call_apart, pickled

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.concurrency.figures import WorkersReading

T = TypeVar("T")


class WorkerProcesses:
    """`await processes.run(f, 1, 2)`: at most `limit` at once in each event loop."""

    def __init__(
        self,
        *,
        limit: int,
        waiting_max: int = 10_000,
        name: str = "worker processes",
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
        kill_on_cancel: bool = True,
    ) -> T:
        """The result of `function(*args)`, run in another process: all of them are pickled.

        Waits at most `wait_s` for a process and `timeout_s` for the result; None for no limit.  A
        cancellation or a timeout kills the process, and the next call has a new one; without
        `kill_on_cancel` a cancellation waits for the call's end.  Contextvars stay here.

        Raises what it raises, WorkerDiedError, WorkersBusyError, WorkersTimeoutError.
        """
        places, counts = self._places, self._places.counts
        holder = object()
        here = await places.take(holder, wait_s)
        ready = ready_processes()
        has_begun = is_alive = False
        began_us = self._clock()
        try:
            with (
                anyio.CancelScope(shield=not kill_on_cancel),
                anyio.move_on_after(timeout_s),
            ):
                call = pickled(function, args)
                await ready.take()
                has_begun = True
                result: T = await anyio.to_process.run_sync(
                    call_apart, call, cancellable=True, limiter=UNLIMITED
                )
                is_alive = True
                return result
        except anyio.BrokenWorkerProcess as error:
            counts.died += 1
            raise WorkerDiedError(places.name, DIED if has_begun else NOT_STARTED) from error
        except Exception:
            is_alive = has_begun
            counts.failed += 1
            raise
        finally:
            if is_alive:  # anyio kills it at a timeout or a cancellation
                ready.give_back()
            counts.run_us += self._clock() - began_us
            here.limiter.release_on_behalf_of(holder)
        counts.timeouts += 1
        raise WorkersTimeoutError(places.name, "run", timeout_s or 0.0)

    def reading(self) -> WorkersReading:
        """The figures by now."""
        return self._places.reading()


OWN: Final[RunVar[WorkerProcesses]] = RunVar("perf_middleware_processes")


def default_processes() -> WorkerProcesses:
    """Those of this event loop that `to_process` uses where it is given none."""
    try:
        return OWN.get()
    except LookupError:
        processes = WorkerProcesses(limit=os.cpu_count() or 1)
        OWN.set(processes)
        return processes


async def to_process(
    function: Callable[..., T],
    *args: Any,
    workers: WorkerProcesses | None = None,
    wait_s: float | None = None,
    timeout_s: float | None = None,
    kill_on_cancel: bool = True,
) -> T:
    """`WorkerProcesses.run` of `workers`, or of this event loop's own."""
    return await (workers or default_processes()).run(
        function, *args, wait_s=wait_s, timeout_s=timeout_s, kill_on_cancel=kill_on_cancel
    )

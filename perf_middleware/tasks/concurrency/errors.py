"""What worker threads and processes raise."""

from __future__ import annotations

from typing import Final

from perf_middleware.errors import PerfMiddlewareError, RequestRejectedError

DIED: Final = "the process died before it had answered"
NOT_STARTED: Final = "no process could be started; the error before this one says why"


class WorkersBusyError(RequestRejectedError):
    """As many as may wait for a worker thread or process are waiting already (`waiting_max`).

    Raised at the call; nothing was run.  Uncaught it is answered with 503.
    """

    def __init__(self, workers: str, waiting_max: int, retry_after_s: int | None = 1) -> None:
        super().__init__(503, retry_after_s)
        self.args = (workers, waiting_max, retry_after_s)  # as the constructor's, for pickling
        self.workers = workers
        self.waiting_max = waiting_max

    def __str__(self) -> str:
        return f"{self.workers} are all busy, and {self.waiting_max} wait already"


class WorkersTimeoutError(PerfMiddlewareError, TimeoutError):
    """A worker thread or process was not free, or not done, in time; `doing` says which: wait, run.

    After `run` a process is killed; a thread cannot be: it goes on, and its place is taken until it
    has ended.
    """

    def __init__(self, workers: str, doing: str, seconds: float) -> None:
        super().__init__(workers, doing, seconds)
        self.workers = workers
        self.doing = doing
        self.seconds = seconds

    def __str__(self) -> str:
        what = "none was free" if self.doing == "wait" else "it was not done"
        return f"{self.workers}: {what} within {self.seconds:g} s"


class WorkerDiedError(PerfMiddlewareError):
    """The worker process that ran a call has died under it: killed, out of memory, a crash.

    Raised to the one who called.  Whether the call was done is not known; it is not run again.  The
    next call has a new process.  `problem` says where none could be started at all.
    """

    def __init__(self, workers: str, problem: str = DIED) -> None:
        super().__init__(workers, problem)
        self.workers = workers
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.workers}: {self.problem}"

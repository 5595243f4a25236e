"""The errors of queues, jobs and what is done behind answers."""

from __future__ import annotations

from perf_middleware.errors import PerfMiddlewareError, RequestRejectedError


class QueueFullError(RequestRejectedError):
    """A task queue has no room for another job, and had none within `waited_s`.

    Raised by `enqueue()`; the call was not accepted.  Uncaught it is answered with 503.
    """

    def __init__(self, backlog: int, waited_s: float = 0.0, retry_after_s: int | None = 1) -> None:
        super().__init__(503, retry_after_s)
        self.args = (backlog, waited_s, retry_after_s)  # as the constructor's, for pickling
        self.backlog = backlog
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"the task queue is full: {self.backlog} jobs wait, no room in {self.waited_s:g} s"


class QueueClosedError(RequestRejectedError):
    """A task queue takes no jobs: it is draining, closed or switched off; `state` says which.

    Raised by `enqueue()`; never for a job that was accepted.  Uncaught it is answered with 503.
    """

    def __init__(self, state: str) -> None:
        super().__init__(503)
        self.args = (state,)  # repeat the constructor: the error survives pickling
        self.state = state

    def __str__(self) -> str:
        return f"the task queue takes no jobs: it is {self.state}"


class JobUnfinishedError(PerfMiddlewareError):
    """A job has no result yet.  Raised by `job.result()`; `await job.wait()` first."""

    def __init__(self, task: str, job_id: str, status: str) -> None:
        super().__init__(task, job_id, status)
        self.task = task
        self.job_id = job_id
        self.status = status

    def __str__(self) -> str:
        return f"job {self.job_id} of {self.task} has no result: it is {self.status}"


class JobCancelledError(JobUnfinishedError):
    """A job will have none: it was cancelled, or handed back by a queue that closed (`status`)."""

    def __str__(self) -> str:
        return f"job {self.job_id} of {self.task} was {self.status.replace('_', ' ')}"


class TaskTimeoutError(PerfMiddlewareError, TimeoutError):
    """An attempt of a job took longer than its `timeout_s` and was cut.

    It is the job's error; raised by `job.result()`.  It may be tried again like any other, unless
    it ran in a thread, which goes on.
    """

    def __init__(self, task: str, timeout_s: float) -> None:
        super().__init__(task, timeout_s)
        self.task = task
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"{self.task} took longer than {self.timeout_s:g} s"


class TaskArgumentsError(PerfMiddlewareError, TypeError):
    """A durable call cannot be kept as it is: it is no JSON, or does not fit its function.

    Raised before anything is accepted; of an entry that is read again later it is the reason why it
    is a dead letter.
    """

    def __init__(self, task: str, why: str) -> None:
        super().__init__(task, why)  # args repeat the constructor: the error survives pickling
        self.task = task
        self.why = why

    def __str__(self) -> str:
        return f"the arguments of {self.task}: {self.why}"


class JournalFullError(RequestRejectedError):
    """The journal has no room for another durable call, which was not accepted.

    Raised before the response; uncaught it is answered with 503.  Dead letters take room too.
    """

    def __init__(self, entries: int, kept_bytes: int, retry_after_s: int | None = 1) -> None:
        super().__init__(503, retry_after_s)
        self.args = (entries, kept_bytes, retry_after_s)  # as the constructor's, for pickling
        self.entries = entries
        self.kept_bytes = kept_bytes

    def __str__(self) -> str:
        return f"the journal of tasks is full: {self.entries} entries of {self.kept_bytes} bytes"


class JournalUnavailableError(RequestRejectedError):
    """The journal could not be written, or there is none: the durable call was not accepted.

    Raised before the response; uncaught it is answered with 503.  `reason` tells the operator why
    (a full disk, a file that is read-only, ...).
    """

    def __init__(self, reason: str, retry_after_s: int | None = 1) -> None:
        super().__init__(503, retry_after_s)
        self.args = (reason, retry_after_s)  # as the constructor's, for pickling
        self.reason = reason

    def __str__(self) -> str:
        return f"the journal of tasks is not available: {self.reason}"

"""Why a durable call is not accepted."""

from __future__ import annotations

from perf_middleware.errors import PerfMiddlewareError, RequestRejectedError


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

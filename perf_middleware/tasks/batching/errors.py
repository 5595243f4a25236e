"""What batched look-ups raise."""

from __future__ import annotations

from perf_middleware.errors import PerfMiddlewareError, RequestRejectedError


class BatchResultError(PerfMiddlewareError, TypeError):
    """A bulk function gave what cannot be told apart by key; `problem` says what.

    Raised to all who asked in that call: a mistake in the bulk function.
    """

    def __init__(self, batch: str, problem: str) -> None:
        super().__init__(batch, problem)
        self.batch = batch
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.batch}: {self.problem}"


class MissingResultError(PerfMiddlewareError, LookupError):
    """A bulk function has nothing for a key, and there is no default; `key` as `repr` shows it.

    Raised to those who asked for that key alone.
    """

    def __init__(self, batch: str, key: str) -> None:
        super().__init__(batch, key)
        self.batch = batch
        self.key = key

    def __str__(self) -> str:
        return f"{self.batch}: there is no result for {self.key}"


class BatchTimeoutError(PerfMiddlewareError, TimeoutError):
    """A bulk call had no answer within `seconds`, its time in line among them.

    Raised to all who asked in that call, which is cancelled.
    """

    def __init__(self, batch: str, seconds: float) -> None:
        super().__init__(batch, seconds)
        self.batch = batch
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.batch}: no answer within {self.seconds:g} s"


class BatchCancelledError(PerfMiddlewareError):
    """A bulk call was cancelled by something else than those who wait for it.

    Raised to all who asked in that call: nobody has cancelled them.
    """

    def __init__(self, batch: str) -> None:
        super().__init__(batch)
        self.batch = batch

    def __str__(self) -> str:
        return f"{self.batch}: the bulk call was cancelled"


class BatchLineFullError(RequestRejectedError):
    """As many as may wait for bulk calls of one function are waiting already (`waiting_max`).

    Raised at the look-up; nothing was asked.  Uncaught it is answered with 503.
    """

    def __init__(self, batch: str, waiting_max: int, retry_after_s: int | None = 1) -> None:
        super().__init__(503, retry_after_s)
        self.args = (batch, waiting_max, retry_after_s)  # as the constructor's, for pickling
        self.batch = batch
        self.waiting_max = waiting_max

    def __str__(self) -> str:
        return f"{self.batch}: {self.waiting_max} look-ups wait already"

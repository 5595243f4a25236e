"""What a session raises that gets no connection: our errors, which Starlette answers with 503."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from perf_middleware.errors import DatabaseBusyError, DatabaseUnavailableError


class NoConnectionError(DatabaseBusyError, HTTPException):
    """What a refused wait raises: also Starlette's own error, which it answers with 503."""

    def __init__(
        self, database: str, waited_s: float = 0.0, retry_after_s: int | None = None
    ) -> None:
        DatabaseBusyError.__init__(self, database, waited_s, retry_after_s)
        self.status_code = 503
        self.detail = "the database is busy"
        self.headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}

    def __str__(self) -> str:
        return DatabaseBusyError.__str__(self)


class NoDatabaseError(DatabaseUnavailableError, HTTPException):
    """What a session raises whose database is away: Starlette's own error too, as above."""

    def __init__(self, database: str, reason: str, retry_after_s: int | None = None) -> None:
        DatabaseUnavailableError.__init__(self, database, reason, retry_after_s)
        self.status_code = 503
        self.detail = "the database does not answer"
        self.headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}

    def __str__(self) -> str:
        return DatabaseUnavailableError.__str__(self)

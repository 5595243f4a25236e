"""Which errors mean that the database is away: the statement is right, and nobody was there for it.

    refused, reset, no socket          while connecting or in a statement
    any other word of a driver         while connecting: no such role, password, database, file
    08xxx, 57P01 to 57P03, 53300       the server said so: it ends, it starts, it takes no more
    TimeoutError of the driver's own   nothing was heard in `connect_s`, `statement_s`

Looked at is the error itself with what SQLAlchemy wraps in it, not what an app raised `from` it:
that app has decided.  A timeout of the app's own (`asyncio.timeout`) has no frame of SQLAlchemy's.
Source: PostgreSQL, Appendix A; SQLAlchemy `Connection._commit_impl`, asyncpg's dialect.
"""

from __future__ import annotations

from typing import Final

from perf_middleware.database.retry.transient import (
    CONNECTING,
    began_no_commit,
    came_through,
    chain,
    is_sqlalchemys,
    sqlstate_of,
    transient_reason,
)

TOO_MANY_CONNECTIONS: Final = "53300"
COMMITS: Final = ("sqlalchemy.engine.base", "_commit_impl")
REASON_CHARS_MAX: Final = 300
LOST_BEFORE: Final = "the connection was lost before COMMIT, so the transaction was not committed"


def is_loss(error: BaseException) -> bool:
    """Whether `error`, which a session's block ended with, says that the database is away."""
    if isinstance(error, TimeoutError):
        return came_through(error, "sqlalchemy")
    is_of_driver = type(error).__module__.partition(".")[0] == "asyncpg"
    if not (is_of_driver or isinstance(error, OSError) or is_sqlalchemys(error)):
        return False
    if transient_reason(error) == "connection":
        return True
    if came_through(error, CONNECTING):
        # All that a driver says while it connects: a role, a file that are not there. What
        # SQLAlchemy says by itself there (a pool that has none in time) has no `orig`.
        return not is_sqlalchemys(error) or getattr(error, "orig", None) is not None
    return any(sqlstate_of(link) == TOO_MANY_CONNECTIONS for link in chain(error))


def reason_of(error: BaseException) -> str:
    """One sentence about `error`, without the statement and its values."""
    if began_no_commit(error):
        return LOST_BEFORE
    cause = getattr(error, "driver_exception", None) or getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:REASON_CHARS_MAX] or type(cause).__name__


def cut_a_commit(error: BaseException) -> bool:
    """Whether it was a COMMIT that `error` ended: nobody knows then if it was done.

    Not where an earlier statement has lost the connection, as one does that is cancelled when the
    client of a stream goes away: SQLAlchemy then sends no COMMIT at all.
    """
    if began_no_commit(error):
        return False
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == COMMITS:
            return True
        traceback = traceback.tb_next
    return False

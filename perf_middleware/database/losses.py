"""Which errors mean that the database is away: the statement is right, and nobody was there for it.

    refused, reset, no socket          while connecting or in a statement
    08xxx, 57P01 to 57P03, 53300       the server said so: it ends, it starts, it takes no more
    NOBODY_LET_IN, or no CONNECT       while connecting: no such role, password, database
    SQLite, but not STATEMENTS_OWN     while connecting: no such folder, somebody has locked it
    TimeoutError of the driver's own   nothing was heard in `connect_s`, `statement_s`

Looked at is the error itself with what SQLAlchemy wraps in it, not what an app raised `from` it:
that app has decided.  A timeout of the app's own (`asyncio.timeout`) has no frame of SQLAlchemy's.
Connecting is also when an app's listeners set up connections (`connect`, `checkout`): a mistake in
their statements, or in an argument of the driver, is one in the program, which no waiting mends.
Source: PostgreSQL, Appendix A, and `InitPostgres`, `CheckMyDatabase` (postinit.c) for what it says
to whom it does not let in; SQLite, "Result Codes"; PEP 249, "Exceptions"; SQLAlchemy
`Connection._commit_impl`, asyncpg's dialect.
"""

from __future__ import annotations

from typing import Final

from perf_middleware.database.retry.transient import (
    CONNECTING,
    began_no_commit,
    came_through,
    chain,
    is_from_connecting,
    is_sqlalchemys,
    sqlstate_of,
    transient_reason,
)

TOO_MANY_CONNECTIONS: Final = "53300"
NOBODY_LET_IN: Final = (
    "08",  # connection exceptions; PgBouncer's word for all that it does not let in (08P01)
    "28",  # no such role, a wrong password, no line in pg_hba.conf
    "3D",  # no such database
    "53",  # too many connections, no memory, a full disk
    "55000",  # a database that takes no connections, or was half dropped
    "57",  # it ends, it starts; a login that took too long is 57014
    "58",  # an error of its system: a file of its own that is not there
    "XX",  # an error within it; poolers say so of a tenant that they do not know
)
NO_PRIVILEGE: Final = "42501"  # of CONNECT, where it is fatal; else of what a listener asks for
FATAL: Final = frozenset({"FATAL", "PANIC"})
# Primary codes: ERROR (its SQL), TOOBIG, CONSTRAINT, MISMATCH, MISUSE, RANGE.
STATEMENTS_OWN: Final = frozenset({1, 18, 19, 20, 21, 25})
PROGRAMS_OWN: Final = frozenset(
    {"InterfaceError", "ProgrammingError", "NotSupportedError", "DataError", "IntegrityError"}
)  # PEP 249's names; asyncpg's errors of its arguments are InterfaceErrors too
COMMITS: Final = ("sqlalchemy.engine.base", "_commit_impl")
REASON_CHARS_MAX: Final = 300
LOST_BEFORE: Final = "the connection was lost before COMMIT, so the transaction was not committed"


def is_loss(error: BaseException) -> bool:
    """Whether `error`, which a session's block ended with, says that the database is away."""
    if isinstance(error, TimeoutError):
        if came_through(error, CONNECTING):
            return is_from_connecting(error)
        return came_through(error, "sqlalchemy")
    is_of_driver = type(error).__module__.partition(".")[0] == "asyncpg"
    if not (is_of_driver or isinstance(error, OSError) or is_sqlalchemys(error)):
        return False
    if transient_reason(error) == "connection":
        return True
    if came_through(error, CONNECTING):
        return lets_nobody_in(error)
    return any(sqlstate_of(link) == TOO_MANY_CONNECTIONS for link in chain(error))


def lets_nobody_in(error: BaseException) -> bool:
    """Whether `error`, raised while connecting, is about the database, and not the program's."""
    if isinstance(error, OSError):
        return is_from_connecting(error)
    if is_sqlalchemys(error) and getattr(error, "orig", None) is None:
        return False  # what SQLAlchemy says by itself: a pool that has none in time
    links = list(chain(error))
    for link in links:
        sqlstate = sqlstate_of(link)
        if sqlstate == NO_PRIVILEGE:
            return any(getattr(each, "severity_en", None) in FATAL for each in links)
        if sqlstate is not None:
            return sqlstate.startswith(NOBODY_LET_IN)
        code = getattr(link, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code & 0xFF not in STATEMENTS_OWN  # the lowest byte is the primary code
    return not any(kind.__name__ in PROGRAMS_OWN for link in links for kind in type(link).__mro__)


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

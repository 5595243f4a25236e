"""Which errors of a transaction are transient: the same work may succeed the next time.

    serialization  40001               another transaction was first (SERIALIZABLE, REPEATABLE READ)
    deadlock       40P01               the server has chosen this one to end a deadlock
    busy           SQLITE_BUSY         another connection holds the file's write lock
    connection     08xxx, 57P01-57P03  the connection is lost, or was not made

An error is looked at through what wraps it: SQLAlchemy's `orig`, `raise … from`, and a group whose
every member is transient.  It is known by what it carries, never by its text, so no client library
has to be imported, or even be there.  An error raised while another one is handled, without `from`,
is not looked through: an app that answers a conflict itself has decided.
Sources: PostgreSQL, "Serialization Failure Handling" and Appendix A; SQLite, "Result Codes".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator

Reason: TypeAlias = Literal["serialization", "deadlock", "busy", "connection"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

# Not here on purpose: 40003 says that nobody knows what has happened; 25P03 and 57P05 end a session
# that was idle for too long, and 57014 a statement that ran too long: they would do it again;
# 53300 (too many connections) and a pool that had none in time are load, which retries add to.
SQLSTATES: Final[dict[str, Reason]] = {
    "40001": "serialization",
    "40P01": "deadlock",
    "08000": "connection",  # connection_exception
    "08001": "connection",  # the client could not connect
    "08003": "connection",  # connection_does_not_exist
    "08004": "connection",  # the server did not take the connection
    "08006": "connection",  # connection_failure
    "57P01": "connection",  # admin_shutdown, pg_terminate_backend
    "57P02": "connection",  # crash_shutdown
    "57P03": "connection",  # cannot_connect_now: it is starting up
}
SESSION_ENDED: Final = frozenset({"25P03", "57P05"})

SQLITE_BUSY: Final = 5  # the lowest byte of a result code is its primary code
SQLITE_LOCKED_SHAREDCACHE: Final = 262  # plain SQLITE_LOCKED is this connection's own doing

INVALID_TRANSACTION: Final = "8s2b"  # SQLAlchemy: used on after its connection was lost
CONNECTING: Final = "sqlalchemy.pool"
DRIVING: Final = ("sqlalchemy.dialects", "sqlalchemy.connectors", "sqlalchemy.engine.default")
WRAPPED_MAX: Final = 32  # errors looked through; what lies deeper is not known


def transient_reason(error: BaseException) -> Reason | None:
    """Why the transaction that ended with `error` may succeed the next time, or None.

    The first error in the chain that says something decides: what wraps knows more.
    """
    if isinstance(error, BaseExceptionGroup):
        reasons = [transient_reason(member) for member in error.exceptions]
        return reasons[0] if None not in reasons else None
    for link in chain(error):
        if isinstance(link, BaseExceptionGroup):
            return transient_reason(link)
        known = reason_of_one(link)
        if known is not None:
            return known or None
    return None


def reason_of_one(error: BaseException) -> Reason | Literal[""] | None:
    """What `error` alone says: a reason, "" for certainly not transient, None for nothing."""
    sqlstate = sqlstate_of(error)
    if sqlstate is not None:
        if sqlstate in SESSION_ENDED:
            return ""
        return SQLSTATES.get(sqlstate, "")
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return "busy" if code & 0xFF == SQLITE_BUSY or code == SQLITE_LOCKED_SHAREDCACHE else ""
    orig = getattr(error, "orig", None)
    if isinstance(orig, BaseException) and sqlstate_of(orig) is not None:
        return None  # the server's word is more exact than SQLAlchemy's, which comes with it
    if getattr(error, "connection_invalidated", False) is True:
        return "connection"
    if began_no_commit(error) or is_between_ends(error):
        return "connection"
    if is_of_the_socket(error) and is_from_connecting(error):
        return "connection"
    return None


def is_of_the_socket(error: BaseException) -> bool:
    """Whether no connection could be made; asyncpg lets such errors through as they are.

    FileNotFoundError is a Unix socket without a server, and plain OSError what asyncio makes of
    several addresses that all failed.  A timeout is not: it has taken its time already.
    """
    return isinstance(error, OSError) and not isinstance(error, TimeoutError | PermissionError)


def is_between_ends(error: BaseException) -> bool:
    """Whether asyncpg has heard the server's last word on a connection, and not yet its hanging up.

    Its subclasses are about other things; nothing was sent.
    """
    kind = type(error)
    return kind.__name__ == "InternalClientError" and kind.__module__.startswith("asyncpg.")


def sqlstate_of(error: BaseException) -> str | None:
    """The five characters of a server's error: asyncpg and psycopg say `sqlstate`, others `pgcode`.

    A driver's own error (asyncpg's InterfaceError) has the attribute and nothing in it.
    """
    for name in ("sqlstate", "pgcode"):
        sqlstate = getattr(error, name, None)
        if isinstance(sqlstate, str) and len(sqlstate) == 5:
            return sqlstate
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error`, then what it wraps, from the outside in, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < WRAPPED_MAX:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        orig = getattr(link, "orig", None)
        waiting += [orig if isinstance(orig, BaseException) else None, link.__cause__]


def is_sqlalchemys(error: BaseException) -> bool:
    """Whether it is of a class of SQLAlchemy's, or of one below."""
    return any(kind.__module__ == "sqlalchemy.exc" for kind in type(error).__mro__)


def came_through(error: BaseException, package: str) -> bool:
    """Whether `error` was raised in code of `package` or passed it: another client's did not."""
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        if isinstance(name, str) and name.startswith(package):
            return True
        traceback = traceback.tb_next
    return False


def is_from_connecting(error: BaseException) -> bool:
    """Whether a driver raised `error` while the pool made or tested a connection.

    Not where an app's own listener did (`connect`, `checkout`, `do_connect`): SQLAlchemy's events
    call that, while all that a driver does, also for a listener, is called by SQLAlchemy's dialect.
    """
    traceback = error.__traceback__
    is_in_pool = is_of_others = False
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__")
        name = name if isinstance(name, str) else ""
        if is_in_pool and name.startswith(DRIVING):
            return True
        if name.startswith(CONNECTING):
            is_in_pool = True
        elif is_in_pool and not name.startswith("sqlalchemy."):
            is_of_others = True
        traceback = traceback.tb_next
    return is_in_pool and not is_of_others


def ended_without_commit(error: BaseException) -> bool:
    """Whether an error of COMMIT itself proves that nothing was committed.

    True for what the server says about the transaction (class 40 but 40003) and for a busy SQLite,
    which keeps it open, and where COMMIT was never sent.  A connection that is lost then proves
    nothing: the server may have committed before, 57P01 included (it also ends a wait for a
    standby, after the commit).
    """
    if began_no_commit(error):
        return True
    return transient_reason(error) in ("serialization", "deadlock", "busy")


def began_no_commit(error: BaseException) -> bool:
    """Whether COMMIT was never sent: SQLAlchemy had seen before that the connection is lost."""
    return getattr(error, "code", None) == INVALID_TRANSACTION and is_sqlalchemys(error)

"""Which errors mean that the same transaction may succeed the next time."""

import sqlite3
import sys
import types

import asyncpg
import pytest
from sqlalchemy import exc

from perf_middleware.database.retry.transient import (
    SQLSTATES,
    WRAPPED_MAX,
    ended_without_commit,
    transient_reason,
)


class ServerError(Exception):
    """As asyncpg and psycopg: the server's word is an attribute."""

    def __init__(self, sqlstate, name="sqlstate"):
        super().__init__(sqlstate)
        setattr(self, name, sqlstate)


def wrapped(orig, *, lost=False):
    return exc.DBAPIError("update t", {}, orig, connection_invalidated=lost)


def caused(error, cause):
    error.__cause__ = cause
    return error


def handled(error, context):
    error.__context__ = context
    return error


def sqlite(code):
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    return error


def raised_through(module, error):
    """`error` with a traceback that leads through a function of `module`."""
    made = types.ModuleType(module)
    exec("def call(error): raise error", made.__dict__)
    try:
        made.call(error)
    except OSError as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(ServerError("40001"), "serialization", id="a driver's own error"),
        pytest.param(ServerError("40P01", "pgcode"), "deadlock", id="psycopg2's name for it"),
        pytest.param(wrapped(ServerError("40001")), "serialization", id="wrapped by SQLAlchemy"),
        pytest.param(
            wrapped(caused(Exception("adapted"), ServerError("40P01"))), "deadlock",
            id="an adapter between the two",
        ),
        pytest.param(
            caused(RuntimeError("saving"), wrapped(ServerError("40001"))), "serialization",
            id="raised from it by the app",
        ),
        pytest.param(
            handled(RuntimeError("409"), ServerError("40001")), None,
            id="an answer that the app has given itself",
        ),
        pytest.param(wrapped(ServerError("23505")), None, id="a unique key"),
        pytest.param(ServerError("40003"), None, id="the server does not know the outcome"),
        pytest.param(ServerError("57014"), None, id="a statement timeout"),
        pytest.param(ServerError("53300"), None, id="too many connections is load"),
        pytest.param(wrapped(ServerError("57P01"), lost=True), "connection", id="killed"),
        pytest.param(ServerError("57P03"), "connection", id="the server is starting up"),
        pytest.param(wrapped(Exception("closed"), lost=True), "connection", id="lost, no word"),
        pytest.param(
            wrapped(ServerError("25P03"), lost=True), None,
            id="lost for being idle: the next one would be as idle",
        ),
        pytest.param(
            wrapped(ServerError("40001"), lost=True), "serialization",
            id="the server's word counts before the loss that follows it",
        ),
        pytest.param(exc.PendingRollbackError("x", code="8s2b"), "connection", id="used after"),
        pytest.param(exc.PendingRollbackError("x", code="7s2a"), None, id="a failed flush"),
        pytest.param(asyncpg.InternalClientError("state 15"), "connection", id="it hangs up now"),
        pytest.param(asyncpg.ProtocolError("no message"), None, id="a server that talks nonsense"),
        pytest.param(exc.TimeoutError("pool"), None, id="no connection in time is load"),
        pytest.param(wrapped(sqlite(5)), "busy", id="SQLITE_BUSY"),
        pytest.param(sqlite(517), "busy", id="SQLITE_BUSY_SNAPSHOT"),
        pytest.param(sqlite(773), "busy", id="SQLITE_BUSY_TIMEOUT"),
        pytest.param(sqlite(262), "busy", id="SQLITE_LOCKED_SHAREDCACHE"),
        pytest.param(sqlite(6), None, id="SQLITE_LOCKED is this connection's own doing"),
        pytest.param(sqlite(19), None, id="SQLITE_CONSTRAINT"),
        pytest.param(sqlite3.OperationalError("database is locked"), None, id="text says nothing"),
        pytest.param(ConnectionRefusedError(), None, id="refused to some other client"),
        pytest.param(
            raised_through("sqlalchemy.pool.base", ConnectionRefusedError()), "connection",
            id="refused to the pool",
        ),
        pytest.param(
            raised_through("sqlalchemy.pool.base", OSError("Multiple exceptions: …")), "connection",
            id="refused at each of the host's addresses",
        ),
        pytest.param(
            raised_through("sqlalchemy.pool.base", TimeoutError()), None,
            id="a connect timeout has taken its time",
        ),
        pytest.param(
            ExceptionGroup("tasks", [ServerError("40001"), wrapped(ServerError("40P01"))]),
            "serialization", id="a group of nothing else",
        ),
        pytest.param(
            ExceptionGroup("tasks", [ServerError("40001"), ValueError()]), None,
            id="a group with a mistake in it",
        ),
        pytest.param(
            caused(RuntimeError(), ExceptionGroup("tasks", [ServerError("40001")])),
            "serialization", id="a group behind another error",
        ),
        pytest.param(ValueError("40001"), None, id="a text that looks like it"),
        pytest.param(KeyboardInterrupt(), None, id="no exception of work at all"),
    ],
)  # fmt: skip
def test_an_error_is_transient_for_what_it_carries(error, reason):
    assert transient_reason(error) == reason


def test_an_error_that_is_its_own_cause_ends():
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert transient_reason(one) is None


def test_no_more_errors_are_looked_through_than_the_bound():
    error = ServerError("40001")
    for _ in range(WRAPPED_MAX - 1):
        error = caused(RuntimeError(), error)
    assert transient_reason(error) == "serialization"
    assert transient_reason(caused(RuntimeError(), error)) is None


@pytest.mark.parametrize(("sqlstate", "reason"), SQLSTATES.items())
def test_a_lost_connection_alone_leaves_a_commit_open(sqlstate, reason):
    assert ended_without_commit(ServerError(sqlstate)) == (reason != "connection")


def test_the_pool_s_frames_are_the_real_ones():
    import sqlalchemy.pool.base

    assert sqlalchemy.pool.base.__name__ in sys.modules
    assert sqlalchemy.pool.base.__name__.startswith("sqlalchemy.pool")

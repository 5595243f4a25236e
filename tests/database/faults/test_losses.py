"""Which errors say that the database is away, and which are the statement's own."""

import asyncio
import pickle
import sqlite3

import pytest
from asyncpg import exceptions as asyncpg_errors
from sqlalchemy import create_engine, exc

from perf_middleware.database.holding.runtime.refusals import NoDatabaseError
from perf_middleware.database.losses import cut_a_commit, is_loss, reason_of
from perf_middleware.database.retry.transient import ended_without_commit, transient_reason
from perf_middleware.errors import CommitOutcomeUnknownError


def wrapped(orig, *, is_disconnect=False):
    return exc.DBAPIError("select 1", {}, orig, connection_invalidated=is_disconnect)


def told(orig):
    error = RuntimeError("the app's own")
    error.__cause__ = wrapped(orig)
    return error


def raised_in(module, function, error):
    """`error` as it comes out of a function of that name in a module of that name."""
    scope = {"__name__": module, "error": error}
    exec(f"def {function}():\n    raise error", scope)
    with pytest.raises(type(error)) as caught:
        scope[function]()
    return caught.value


def raised_through(modules, error):
    """`error` as it comes through functions of those modules, which call one another."""

    def call():
        raise error

    for module in reversed(modules):
        scope = {"__name__": module, "call": call}
        exec("def passed():\n    call()", scope)
        call = scope["passed"]
    with pytest.raises(type(error)) as caught:
        call()
    return caught.value


def connecting(error):
    return raised_in("sqlalchemy.pool.base", "connect", error)


def by_the_driver(error):
    """Where asyncpg raises it, called by an observer that has wrapped it."""
    return raised_through(
        ["sqlalchemy.pool.base", "sqlalchemy.engine.default", "observer", "asyncpg", "asyncio"],
        error,
    )


def by_a_listener(error, *below):
    return raised_through(["sqlalchemy.pool.base", "sqlalchemy.event.attr", "app", *below], error)


def of_sqlite(code):
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return wrapped(error)


def of_postgresql(sqlstate, severity="ERROR"):
    """As SQLAlchemy gives it on: its own error, from asyncpg's, which knows how bad it was."""
    raised = asyncpg_errors.PostgresError.new(
        {"C": sqlstate, "M": "x", "S": "ERREUR", "V": severity}
    )
    adapted = Exception("x")
    adapted.sqlstate = sqlstate
    adapted.__cause__ = raised
    return wrapped(adapted)


# Of "Appendix A": what is said to those who are not let in, and what a statement was wrong about.
LETS_NOBODY_IN = ("08P01", "28000", "28P01", "3D000", "53200", "53300", "55000", "57P04", "58030")
PROGRAMS_OWN = ("22023", "23505", "42501", "42601", "42704", "42883", "42P01", "55P03", "0A000")
UNOPENED = sqlite3.OperationalError("unable to open database file")


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        pytest.param(wrapped(asyncpg_errors.AdminShutdownError("x")), True, id="it ends"),
        pytest.param(asyncpg_errors.CannotConnectNowError("x"), True, id="it starts"),
        pytest.param(asyncpg_errors.TooManyConnectionsError("x"), True, id="it is full"),
        pytest.param(
            wrapped(asyncpg_errors.InterfaceError("x"), is_disconnect=True), True, id="it is lost"
        ),
        pytest.param(
            raised_in("sqlalchemy.pool.base", "connect", ConnectionRefusedError()),
            True,
            id="it refuses",
        ),
        pytest.param(
            raised_in("sqlalchemy.dialects.postgresql.asyncpg", "execute", TimeoutError()),
            True,
            id="it says nothing",
        ),
        pytest.param(
            connecting(wrapped(asyncpg_errors.InvalidPasswordError("x"))), True, id="a password"
        ),
        pytest.param(connecting(wrapped(UNOPENED)), True, id="a file that cannot be opened"),
        pytest.param(wrapped(UNOPENED), False, id="another file, which a statement attaches"),
        pytest.param(connecting(exc.TimeoutError("x")), False, id="a pool that has none"),
        pytest.param(connecting(ValueError("x")), False, id="the app's own, while connecting"),
        pytest.param(TimeoutError(), False, id="a timeout of the app's"),
        pytest.param(ConnectionRefusedError(), False, id="a connection to somebody else"),
        pytest.param(wrapped(asyncpg_errors.UniqueViolationError("x")), False, id="a constraint"),
        pytest.param(wrapped(asyncpg_errors.QueryCanceledError("x")), False, id="a slow statement"),
        pytest.param(wrapped(asyncpg_errors.SerializationError("x")), False, id="a conflict"),
        pytest.param(told(asyncpg_errors.AdminShutdownError("x")), False, id="the app decided"),
        pytest.param(asyncio.CancelledError(), False, id="a cancellation"),
    ],
)
def test_only_a_connection_that_is_not_there_is_a_loss(error, loss):
    assert is_loss(error) == loss


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        *(pytest.param(of_postgresql(each), True, id=each) for each in LETS_NOBODY_IN),
        *(pytest.param(of_postgresql(each), False, id=each) for each in PROGRAMS_OWN),
        pytest.param(of_postgresql("42501", "FATAL"), True, id="no privilege to connect"),
        pytest.param(of_postgresql("42704", "FATAL"), False, id="no such server setting"),
        pytest.param(of_postgresql("XX000", "FATAL"), True, id="a pooler knows no such tenant"),
        pytest.param(asyncpg_errors.UndefinedTableError("x"), False, id="asyncpg's own, a table"),
        pytest.param(
            asyncpg_errors.InvalidPasswordError("x"), True, id="asyncpg's own, a password"
        ),
        pytest.param(of_sqlite(sqlite3.SQLITE_CANTOPEN), True, id="SQLITE_CANTOPEN"),
        pytest.param(of_sqlite(sqlite3.SQLITE_CANTOPEN_ISDIR), True, id="SQLITE_CANTOPEN_ISDIR"),
        pytest.param(of_sqlite(sqlite3.SQLITE_BUSY), True, id="SQLITE_BUSY"),
        pytest.param(of_sqlite(sqlite3.SQLITE_NOTADB), True, id="SQLITE_NOTADB"),
        pytest.param(of_sqlite(sqlite3.SQLITE_ERROR), False, id="SQLITE_ERROR"),
        pytest.param(of_sqlite(sqlite3.SQLITE_MISUSE), False, id="SQLITE_MISUSE"),
        pytest.param(of_sqlite(sqlite3.SQLITE_CONSTRAINT_CHECK), False, id="SQLITE_CONSTRAINT"),
        pytest.param(
            wrapped(asyncpg_errors.ClientConfigurationError("x")), False, id="a wrong argument"
        ),
        pytest.param(
            wrapped(sqlite3.ProgrammingError("x")), False, id="a cursor used after its end"
        ),
        pytest.param(
            wrapped(asyncpg_errors.TargetServerAttributeNotMatched("x")), True, id="no primary"
        ),
    ],
)
def test_while_connecting_a_mistake_of_the_program_is_no_loss(error, loss):
    """A fixed bug: what an app's own listener had wrong was a database that is away."""
    assert is_loss(connecting(error)) == loss


OF_THE_SYSTEM = [ConnectionRefusedError, FileNotFoundError, PermissionError, TimeoutError]


@pytest.mark.parametrize("kind", OF_THE_SYSTEM)
def test_an_error_of_the_system_is_a_loss_where_the_driver_raised_it(kind):
    assert is_loss(by_the_driver(kind()))
    assert is_loss(by_a_listener(kind(), "sqlalchemy.dialects.postgresql.asyncpg", "asyncpg"))


@pytest.mark.parametrize("kind", OF_THE_SYSTEM)
def test_an_error_of_the_system_that_a_listener_raised_is_the_apps(kind):
    """A fixed bug: a token's file that was not there was a database that is away."""
    for below in ([], ["sqlalchemy.util.concurrency", "http.client"]):
        error = by_a_listener(kind(), *below)
        assert not is_loss(error)
        assert transient_reason(error) is None, "nor is it tried again"


def test_a_reason_is_the_servers_word_without_the_statement():
    assert reason_of(wrapped(asyncpg_errors.AdminShutdownError("it ends\nnow"))) == "it ends now"
    assert reason_of(TimeoutError()) == "TimeoutError"


def test_a_commit_that_was_cut_is_known_by_where_the_error_came_from():
    cut = raised_in("sqlalchemy.engine.base", "_commit_impl", TimeoutError())
    assert cut_a_commit(cut)
    assert not cut_a_commit(raised_in("sqlalchemy.engine.base", "execute", TimeoutError()))


def test_a_commit_that_was_never_sent_leaves_nothing_open():
    """A fixed bug: a client that left a stream in the midst of a statement, which closes the
    connection, was told of as a commit of unknown outcome; `run` did not try such a unit again.
    """
    with create_engine("sqlite://").connect() as connection:
        transaction = connection.begin()
        connection.invalidate()  # as SQLAlchemy does where a statement is cut off
        with pytest.raises(exc.PendingRollbackError) as caught:
            transaction.commit()
    assert is_loss(caught.value)
    assert not cut_a_commit(caught.value)
    assert ended_without_commit(caught.value)
    assert "was not committed" in reason_of(caught.value)


@pytest.mark.parametrize(
    "error", [NoDatabaseError("main", "gone", 5), CommitOutcomeUnknownError(5)]
)
def test_what_is_raised_is_a_503_and_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (again.status, again.retry_after_s, str(again)) == (503, 5, str(error))

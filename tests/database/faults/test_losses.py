"""Which errors say that the database is away, and which are the statement's own."""

import asyncio
import pickle
import sqlite3

import pytest
from asyncpg import exceptions as asyncpg_errors
from sqlalchemy import create_engine, exc

from perf_middleware.database.holding.runtime.refusals import NoDatabaseError
from perf_middleware.database.losses import cut_a_commit, is_loss, reason_of
from perf_middleware.database.retry.transient import ended_without_commit
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


def connecting(error):
    return raised_in("sqlalchemy.pool.base", "connect", error)


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

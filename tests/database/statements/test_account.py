"""The account of a request: opened by its first statement, which counts as any other."""

from itertools import count

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from perf_middleware.database.statements import RequestAccount, StatementWatch, allow_repeats
from tests.database.statements.shop import CURRENT, Request, request

MS = 1_000_000


@pytest.fixture
def engine():
    engine = create_engine("sqlite://", poolclass=StaticPool)
    yield engine
    engine.dispose()


@pytest.fixture
def watch(engine):
    clock = count(0, MS)  # each statement looks twice: it takes 1 ms
    watch = StatementWatch(
        current_request=CURRENT.get, repeats_min=3, clock_ns=lambda: next(clock), slow_s=None
    )
    watch.attach(engine)
    yield watch
    assert watch.status()["failures"] == 0


def run(engine, times, statement="select 1"):
    with engine.connect() as connection:
        for _ in range(times):
            connection.execute(text(statement))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_each_statement_is_in_the_sums_of_its_request_and_route(engine, watch, times):
    for requests in (1, 2):
        with request(watch) as record:
            run(engine, times)
        account = record.statements
        assert (account.statements, account.elapsed_ns) == (times, times * MS)
        assert (account.first, account.tally) == (None, None)  # over: nothing of it is kept
        row = watch.status()["routes"]["GET /test"]
        assert (row["requests"], row["statements"]) == (requests, requests * times)
        assert row["seconds"] == pytest.approx(requests * times / 1000)
        assert row["repeated"] == (requests if times == 3 else 0)


def test_a_statement_without_parameters_is_counted_too(engine, watch):
    with request(watch) as record, engine.connect() as connection:
        connection.execution_options(no_parameters=True).exec_driver_sql("select 1")
    assert record.statements.statements == 1
    (row,) = watch.status()["statements"]
    assert (row["calls"], row["seconds"]) == (1, pytest.approx(0.001))


def test_a_first_statement_that_may_repeat_is_none_of_the_repeats(engine, watch):
    with request(watch):
        with allow_repeats():
            run(engine, 1)
        run(engine, 2)
    assert watch.status()["routes"]["GET /test"]["repeated"] == 0


def test_a_first_statement_that_fails_opens_the_account(engine, watch):
    with request(watch) as record, pytest.raises(Exception, match="nowhere"):
        run(engine, 1, "select * from nowhere")
    assert (record.statements.statements, record.statements.elapsed_ns) == (1, MS)


def test_an_account_that_another_thread_has_opened_meanwhile_is_gone_on_with(engine, watch):
    theirs = RequestAccount()
    theirs.statements, theirs.elapsed_ns, theirs.first = 1, MS, None

    class Raced(Request):
        looks = 0

        @property
        def statements(self):
            self.looks += 1
            return None if self.looks == 1 else theirs

        @statements.setter
        def statements(self, account):
            assert account is None

    token = CURRENT.set(Raced())
    try:
        run(engine, 1)
    finally:
        CURRENT.reset(token)
    assert (theirs.statements, theirs.elapsed_ns) == (2, 2 * MS)

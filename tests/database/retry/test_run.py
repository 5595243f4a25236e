"""How a unit of work is run: fresh sessions, one level of retries, cancellation, figures."""

import contextlib

import anyio
import pytest
from sqlalchemy.orm import Session

from perf_middleware.database.retry.settings import RetrySettings
from perf_middleware.events import Events, RetryBudgetChanged

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class ConflictError(Exception):
    sqlstate = "40001"


class LostError(Exception):
    sqlstate = "57P01"


class FakeSession:
    """An AsyncSession as far as `run` knows it, on any loop; no database behind it."""

    def __init__(self):
        self.sync_session = Session()
        self.did = []

    async def flush(self):
        self.did.append("flush")

    async def commit(self):
        self.did.append("commit")


class Sessions:
    def __init__(self):
        self.made = []
        self.ended = []

    @contextlib.asynccontextmanager
    async def __call__(self):
        session = FakeSession()
        self.made.append(session)
        try:
            yield session
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("well")


def retry_of(*, remaining_s=None, events=None, **settings):
    settings = {"first_s": 0.001, "most_s": 0.001, **settings}
    return RetrySettings(**settings).make_retry(remaining_s=remaining_s, events=events)


def failing(times, error=ConflictError):
    """A unit that fails so many times, then says how many attempts there were."""
    calls = []

    async def unit(session):
        calls.append(session)
        if len(calls) <= times:
            raise error
        return len(calls)

    return unit


async def test_each_attempt_has_a_session_of_its_own_and_the_last_is_committed():
    retry, sessions = retry_of(), Sessions()
    assert await retry.run(failing(2), session=sessions) == 3
    assert [session.did for session in sessions.made] == [[], [], ["flush", "commit"]]
    assert sessions.ended == ["ConflictError", "ConflictError", "well"]
    assert retry.status()["runs"] == {"at_once": 0, "after_retries": 1, "failed": 0}
    assert retry.status()["retries"] == {"serialization": {"retried": 2}}


async def test_a_commit_that_needs_more_is_made_as_asked():
    committed, sessions = [], Sessions()

    async def commit(session):
        committed.append(session)

    retry = RetrySettings().make_retry(commit=commit)
    await retry.run(failing(0), session=sessions)
    assert committed == sessions.made
    assert sessions.made[0].did == ["flush"]


async def test_another_error_goes_up_as_it_is():
    retry, sessions = retry_of(), Sessions()
    with pytest.raises(ZeroDivisionError):
        await retry.run(failing(1, ZeroDivisionError), session=sessions)
    assert sessions.ended == ["ZeroDivisionError"]
    assert retry.status()["runs"]["failed"] == 1


async def test_the_last_attempt_s_error_says_why_there_is_no_other():
    retry, sessions = retry_of(attempts_max=3), Sessions()
    with pytest.raises(ConflictError) as caught:
        await retry.run(failing(9), session=sessions)
    assert len(sessions.made) == 3
    assert caught.value.__notes__ == ["not tried again after attempt 3: that was the last one"]
    assert retry.status()["retries"] == {"serialization": {"retried": 2, "attempts": 1}}


async def test_no_wait_is_begun_that_would_reach_the_request_s_deadline():
    retry, sessions = retry_of(remaining_s=lambda: 0.0), Sessions()
    with pytest.raises(ConflictError):
        await retry.run(failing(1), session=sessions)
    assert retry.status()["retries"] == {"serialization": {"deadline": 1}}


async def test_an_outage_gets_its_tokens_and_then_each_transaction_once():
    told, events = [], Events()
    events.subscribe(RetryBudgetChanged, told.append)
    retry = retry_of(tokens_max=5, connection_ratio=0.5, events=events)
    sessions = Sessions()
    for _ in range(20):
        with pytest.raises(LostError):
            await retry.run(failing(9, LostError), session=sessions)
    assert len(sessions.made) == 20 + 5
    assert told == [RetryBudgetChanged(database="main", kind="connection", is_exhausted=True)]
    # Conflicts of a database that is well have tokens of their own.
    assert await retry.run(failing(1), session=sessions) == 2
    assert await retry.run(failing(0), session=sessions) == 1
    assert await retry.run(failing(1, LostError), session=sessions) == 2
    assert told[1:] == [RetryBudgetChanged(database="main", kind="connection", is_exhausted=False)]


async def test_a_run_inside_a_unit_makes_one_attempt_and_the_outer_one_decides():
    retry, sessions = retry_of(), Sessions()
    inner = failing(1)

    async def outer(session):
        return await retry.run(inner, session=sessions)

    assert await retry.run(outer, session=sessions) == 2
    assert sessions.ended == ["ConflictError", "ConflictError", "well", "well"]
    assert retry.status()["retries"] == {"serialization": {"joined": 1, "retried": 1}}


async def test_a_task_that_outlives_its_unit_runs_on_its_own_terms():
    retry, sessions = retry_of(), Sessions()
    over = anyio.Event()
    results = []

    async def behind():
        await over.wait()
        results.append(await retry.run(failing(1), session=sessions))

    async with anyio.create_task_group() as tasks:

        async def unit(session):
            tasks.start_soon(behind)

        await retry.run(unit, session=sessions)
        over.set()
    assert results == [2]


async def test_cancellation_ends_a_unit_and_is_not_retried():
    retry, sessions = retry_of(), Sessions()

    async def unit(session):
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01) as scope:
        await retry.run(unit, session=sessions)
    assert scope.cancelled_caught
    assert len(sessions.made) == len(sessions.ended) == 1
    assert retry.status()["runs"]["failed"] == 1


async def test_cancellation_ends_the_wait_between_two_attempts():
    retry, sessions = retry_of(first_s=10, most_s=60), Sessions()
    with anyio.move_on_after(0.05) as scope:
        await retry.run(failing(9), session=sessions)
    assert scope.cancelled_caught
    assert len(sessions.made) < 4


async def test_figures_are_there_from_the_start_and_go_back_to_zero():
    retry = retry_of(tokens_max=7)
    await retry.run(failing(1), session=Sessions())

    def value(name, **labels):
        family = next(family for family in retry.families() if family.name == name)
        return next(
            point.value for point in family.points if set(labels.items()) <= set(point.labels.pairs)
        )

    assert value("perf_database_retries", reason="serialization", outcome="retried") == 1
    assert value("perf_database_retries", reason="busy", outcome="budget") == 0
    assert value("perf_database_runs", outcome="after_retries") == 1
    assert value("perf_database_retry_tokens", kind="conflict") == 7
    retry.reset_counts()
    assert value("perf_database_retries", reason="serialization", outcome="retried") == 0


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="most_s must not be below first_s"):
        RetrySettings(first_s=1, most_s=0.5)

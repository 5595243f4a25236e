"""`perf.database.run` over a real server: transactions of PostgreSQL that meet, or are lost."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from perf_middleware import CommitOutcomeUnknownError, Settings, install, timeout
from tests.http.servers import Server, serving

READ = text("select balance from wired_accounts where id = :id")
WRITE = text("update wired_accounts set balance = :balance where id = :id")


def app_of(url):
    app = FastAPI()
    perf = install(
        app,
        Settings(
            database={
                "url": url,
                "session_parameters": {"default_transaction_isolation": "serializable"},
                "databases": {"second": url},
            },
            retry={"first_s": 0.01, "attempts_max": 10},
        ),
    )
    both_have_read = asyncio.Barrier(2)

    async def deposit(session, number, *, met=None, between=None):
        balance = (await session.execute(READ, {"id": number})).scalar_one()
        if met is not None:
            await met()
        if between is not None:
            await between()
        await session.execute(WRITE, {"id": number, "balance": balance + 1})
        return balance + 1

    @app.post("/fill")
    async def fill() -> None:
        async with perf.database.session() as session:
            await session.execute(text("drop table if exists wired_accounts"))
            await session.execute(text("create table wired_accounts (id int, balance int)"))
            await session.execute(text("insert into wired_accounts values (1, 0), (2, 0), (3, 0)"))

    @app.get("/accounts/{number}")
    async def balance(number: int) -> int:
        async with perf.database.session() as session:
            return (await session.execute(READ, {"id": number})).scalar_one()

    @app.post("/meet/{name}")
    async def meet(name: str) -> int:
        attempts = 0

        async def unit(session):
            nonlocal attempts
            attempts += 1
            first = both_have_read.wait if attempts == 1 else None
            return await deposit(session, 1, met=first)

        await perf.database.run(unit, name)
        return attempts

    @app.post("/never")
    @timeout(600)  # only so that there is one: the machine may pause
    async def never() -> list[str]:
        """Another transaction is first each time."""

        async def other():
            async with perf.database.session() as session:
                await deposit(session, 2)

        async def unit(session):
            await deposit(session, 2, between=other)

        try:
            await perf.database.run(unit)
        except DBAPIError as error:
            return [error.orig.sqlstate, *error.__notes__]
        raise AssertionError("it was first once")

    @app.post("/lost/{idempotent}")
    async def lost(idempotent: bool) -> str:
        """The connection is ended by its server before the commit."""
        attempts = 0

        async def unit(session):
            nonlocal attempts
            attempts += 1
            await deposit(session, 3)
            pid = (await session.execute(text("select pg_backend_pid()"))).scalar_one()
            if attempts == 1:
                async with perf.database.session("second") as admin:
                    end = text("select pg_terminate_backend(:pid, 10000)")
                    await admin.execute(end, {"pid": pid})

        try:
            await perf.database.run(unit, idempotent=idempotent)
        except CommitOutcomeUnknownError:
            return "nobody knows"
        return f"after {attempts} attempts"

    return SimpleNamespace(app=app, perf=perf)


@pytest.fixture(scope="module")
def bank(postgres):
    bank = app_of(postgres)
    server = Server(bank.app)
    with serving(server), httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        bank.client = client
        assert client.post("/fill", timeout=30).status_code == 200
        yield bank


def asked(bank, method, path):
    answer = bank.client.request(method, path, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def retries_of(bank, name="main"):
    return bank.perf.status()["database"][name]["retry"]["retries"]


@pytest.mark.parametrize("name", ["main", "second"])
def test_of_two_transactions_that_meet_one_is_tried_again_and_none_is_lost(bank, name):
    before = asked(bank, "GET", "/accounts/1")
    with ThreadPoolExecutor(2) as threads:
        attempts = list(threads.map(lambda _: asked(bank, "POST", f"/meet/{name}"), range(2)))
    assert sum(attempts) > 2
    assert asked(bank, "GET", "/accounts/1") == before + 2
    assert retries_of(bank, name)["serialization"]["retried"] >= 1
    page = bank.client.get("/metrics").text
    assert f'perf_database_runs_total{{database="{name}",outcome="after_retries"}}' in page


def test_no_attempt_is_begun_that_would_reach_the_requests_deadline(bank, monkeypatch):
    (retry,) = [each for name, each in bank.perf.database._retries.items() if name == "main"]
    # The whole of the longest wait, which is longer than the request's time: none is begun.
    monkeypatch.setattr(retry, "_draw", lambda: 1.0)
    monkeypatch.setattr(retry, "_backoff", type(retry._backoff)(
        attempts_max=10, first_us=3_600_000_000, most_us=3_600_000_000
    ))  # fmt: skip
    sqlstate, note = asked(bank, "POST", "/never")
    assert sqlstate == "40001"
    assert note == "not tried again after attempt 1: the request has no time left for another"
    assert retries_of(bank)["serialization"]["deadline"] == 1


def test_a_connection_that_is_lost_at_commit_is_tried_again_only_where_that_does_no_harm(bank):
    before = asked(bank, "GET", "/accounts/3")
    assert asked(bank, "POST", "/lost/false") == "nobody knows"
    assert asked(bank, "GET", "/accounts/3") == before
    assert asked(bank, "POST", "/lost/true") == "after 2 attempts"
    assert asked(bank, "GET", "/accounts/3") == before + 1

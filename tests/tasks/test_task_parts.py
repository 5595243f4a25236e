"""`perf.tasks`: the queue of an app, started, drained, counted and told of with it."""

import asyncio
from contextlib import asynccontextmanager

import anyio
import pytest
import trio
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from perf_middleware import QueueClosedError, Settings, current_deadline, install
from perf_middleware.task_parts import LEFT_OUT

WAIT_S = 120
QUIET = {"dashboard": {"enabled": False}}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_job_of_a_request_keeps_its_trace_and_not_its_deadline(caplog):
    app = FastAPI()
    perf = install(app, Settings(**QUIET, deadlines={"timeout_s": 60}))

    @perf.tasks.task
    async def look():
        return perf.metrics.trace().trace_id, current_deadline()

    @perf.tasks.task
    async def fail():
        raise ValueError("no such address")

    @app.get("/")
    async def enqueue():
        assert current_deadline() is not None
        job, failed = await look.enqueue(), await fail.enqueue()
        await failed.wait(WAIT_S)
        return (await job.wait(WAIT_S)).result()

    @app.get("/sync")
    def enqueue_from_a_thread():
        job = anyio.from_thread.run(look.enqueue)
        return anyio.from_thread.run(job.wait, WAIT_S).result()

    with TestClient(app) as client:
        for path in ("/", "/sync"):
            answer = client.get(path, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
            assert answer.json() == [TRACE, None]
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"trace {TRACE}" in told


def test_nothing_of_a_request_is_left_in_the_context_of_its_jobs():
    app = Starlette()
    perf = install(app, Settings(**QUIET))

    @perf.tasks.task
    async def look():
        return [variable.get(value) is value for variable, value in LEFT_OUT]

    async def main():
        async with perf.running():
            for variable, _ in LEFT_OUT:
                variable.set("a request's")
            job = await look.enqueue()
            assert all((await job.wait(WAIT_S)).result())

    asyncio.run(main())


def test_jobs_are_drained_before_the_app_ends_and_told_of_in_status_and_metrics():
    is_whole = []

    @asynccontextmanager
    async def lifespan(app):
        is_whole.append(True)
        yield
        is_whole.clear()

    app = FastAPI(lifespan=lifespan)
    perf = install(app, Settings(**QUIET))

    @perf.tasks.task(name="late")
    async def late():
        await asyncio.sleep(0.05)
        return is_whole[0]

    jobs = []

    @app.get("/")
    async def enqueue():
        jobs.append(await late.enqueue())

    with TestClient(app) as client:
        client.get("/")
        status = perf.status()
        assert status["resources"]["task queue"]["state"] == "open"
        assert status["tasks"]["tasks"]["late"]["enqueued"] == 1
        assert 'perf_tasks_enqueued_total{task="late"} 1' in client.get("/metrics").text
    assert jobs[0].result() is True
    assert perf.tasks.status()["state"] == "closed"
    with TestClient(app) as client:  # and again, as often as the app is started
        client.get("/")
    assert [job.status for job in jobs] == ["succeeded"] * 2


def test_a_request_that_is_too_late_is_answered_with_503():
    app = FastAPI()
    perf = install(app, Settings(**QUIET))

    @perf.tasks.task
    async def work():
        raise AssertionError

    @app.get("/")
    async def enqueue():
        await perf.tasks.drain()
        await work.enqueue()

    with TestClient(app) as client:
        assert client.get("/").status_code == 503


def test_switched_off_it_takes_no_jobs_and_has_no_figures():
    app = Starlette()
    perf = install(app, Settings(**QUIET, tasks={"enabled": False}))

    async def main():
        async with perf.running():
            with pytest.raises(QueueClosedError, match="switched off"):
                await perf.tasks.submit(int)
        assert perf.status()["tasks"] is None
        assert "task queue" not in perf.status()["resources"]

    asyncio.run(main())
    assert not [f for f in perf.metrics.families() if f.name.startswith("perf_tasks")]


def test_settings_are_the_limits_of_the_queue():
    settings = Settings(tasks={"workers": 3, "backlog_max": 7, "drain_s": 2}).tasks
    limits = settings.make_queue().limits
    assert (limits.workers, limits.backlog_max, limits.drain_s) == (3, 7, 2)
    others = {"enabled", "background_priority"}
    others |= {name for name in type(settings).model_fields if name.startswith("journal_")}
    assert set(type(settings).model_fields) - others == set(limits.__slots__)


def test_on_trio_the_app_starts_and_the_queue_says_why_it_does_not():
    app = Starlette()
    perf = install(app, Settings(**QUIET))

    async def main():
        async with perf.running():
            with pytest.raises(QueueClosedError, match="it needs asyncio"):
                await perf.tasks.submit(int)

    trio.run(main)

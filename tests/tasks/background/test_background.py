"""Background tasks of requests: in Starlette, in FastAPI, over a server, alone."""

import asyncio
import logging
import sys
from typing import Annotated

import httpx2 as httpx
import pytest
from fastapi import BackgroundTasks as FastAPIBackgroundTasks
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import FastAPIError
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from perf_middleware import QueueLimits, Settings, install
from perf_middleware.tasks import BackgroundTasks, RequestTasks, Tasks, background_tasks
from tests.tasks.waiting import until

QUIET = {"dashboard": {"enabled": False}}
InBackground = Annotated[BackgroundTasks, Depends(background_tasks)]


def errors_in(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


def finished(perf):
    """Until nothing waits or runs: in the client's own loop, between two requests."""
    told = perf.tasks.status()
    return not (told["in_progress"] or any(told["backlog"].values()) or told["scheduled"])


def poll(client, perf):
    async def wait():
        await until(lambda: finished(perf))

    client.portal.call(wait)


def test_one_that_fails_stops_no_other_and_is_logged_once_with_its_route(caplog):
    app, ran = FastAPI(), []
    perf = install(app, Settings(**QUIET))

    async def fail(number):
        raise ValueError(number)

    @app.post("/orders/{number}")
    async def order(number: int, tasks: InBackground):
        tasks.add_task(fail, number)
        tasks.add_task(ran.append, number)
        return number

    with TestClient(app) as client:
        assert client.post("/orders/7").json() == 7
        poll(client, perf)
    assert ran == [7]
    (told,) = errors_in(caplog)
    assert told.startswith("task tests.tasks.background.test_background.")
    assert ".fail (job " in told
    assert " of POST /orders/{number}" in told
    counts = perf.tasks.status()["background"]["POST /orders/{number}"]
    assert (counts["accepted"], counts["failed"], counts["in_progress"]) == (2, 1, 0)


def test_fastapi_tells_at_the_start_where_depends_is_missing():
    app = FastAPI()
    with pytest.raises(FastAPIError):

        @app.get("/")
        async def plain(tasks: BackgroundTasks): ...


def test_fastapis_own_tasks_go_on_working_beside_it():
    app, ran = FastAPI(), []
    perf = install(app, Settings(**QUIET))

    @app.get("/")
    async def both(tasks: InBackground, native: FastAPIBackgroundTasks):
        native.add_task(ran.append, "native")
        tasks.add_task(ran.append, "ours")

    with TestClient(app) as client:
        client.get("/")
        poll(client, perf)
    assert sorted(ran) == ["native", "ours"]


def test_starlettes_response_runs_them_after_it_was_sent():
    events = []

    async def endpoint(request):
        tasks = BackgroundTasks([BackgroundTask(events.append, "given")], request=request)
        tasks.add_task(events.append, "added")
        return JSONResponse({}, background=tasks)

    app = Starlette(routes=[Mount("/shop", routes=[Route("/{name}", endpoint)])])
    perf = install(app, Settings(**QUIET))

    async def main():
        async with perf.running():

            async def send(message):
                if message["type"] == "http.response.body":
                    events.append("sent")

            async def receive():
                return {"type": "http.request"}

            await app(http_scope("/shop/kim"), receive, send)
            await until(lambda: len(events) == 3)

    asyncio.run(main())
    assert events[0] == "sent"
    assert sorted(events[1:]) == ["added", "given"]
    assert perf.tasks.status()["background"]["GET /shop/{name}"]["accepted"] == 2


def http_scope(path):
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": [],
        "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("a", 80),
        "client": ("b", 1), "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip


def test_what_a_request_has_left_behind_outlives_its_client_and_its_cancellation():
    app, ran = Starlette(), []
    perf = install(app, Settings(**QUIET))

    async def main():
        goes_on = asyncio.Event()

        async def work(number):
            await goes_on.wait()
            ran.append(number)

        async def endpoint(request):
            await perf.tasks.background(request, work, 1)
            await asyncio.sleep(3600)

        app.router.routes.append(Route("/", endpoint))
        async with perf.running():

            async def receive():
                return {"type": "http.disconnect"}

            async def send(message):
                raise OSError("the client is gone")

            serving = asyncio.create_task(app(http_scope("/"), receive, send))
            await until(lambda: perf.tasks.status()["in_progress"])
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            goes_on.set()
            await until(lambda: ran == [1])

    asyncio.run(main())


def test_at_the_stop_what_was_left_behind_is_waited_for():
    app, ran = FastAPI(), []
    perf = install(app, Settings(**QUIET))

    async def slow():
        await asyncio.sleep(0.2)
        ran.append("slow")

    @app.get("/")
    async def leave(request: Request):
        job = await perf.tasks.background(request, slow)
        return job.status

    with TestClient(app) as client:
        assert client.get("/").json() in {"queued", "running"}
    assert ran == ["slow"]


def test_where_the_queue_takes_no_more_they_run_with_their_response(caplog):
    async def main():
        ran = []
        tasks = Tasks(QueueLimits(workers=1, backlog_max=1, full_wait_s=0))
        goes_on = asyncio.Event()
        request = StarletteRequest(http_scope("/") | {"state": {"perf": Holder(tasks)}})

        async def fail():
            raise ValueError

        ours = BackgroundTasks(request=request)
        for call in (ran.append, ran.append):
            ours.add_task(call, len(ours.tasks))
        ours.add_task(fail)
        async with tasks:
            await tasks.submit(goes_on.wait)
            await until(lambda: not sum(tasks.status()["backlog"].values()))
            await ours()  # the only worker is taken: the first waits, and has filled the queue
            assert ran == [1]
            assert tasks.status()["background"]["GET unmatched"]["in_place"] == 2
            goes_on.set()
            await until(lambda: ran == [1, 0])

    asyncio.run(main())
    (told,) = errors_in(caplog)
    assert told.endswith("fail of GET unmatched failed")


class Holder:
    """What `request.state.perf` is, as far as it is asked."""

    def __init__(self, tasks):
        self.tasks = tasks


def test_without_a_request_they_run_as_starlettes_do_and_none_stops_another(caplog):
    class Own(BackgroundTask):
        async def __call__(self):
            await super().__call__()
            ran.append("in its own way")

    async def fail():
        raise ValueError

    ran = []
    tasks = BackgroundTasks([Own(ran.append, "first")])
    tasks.add_task(fail)
    tasks.add_task(ran.append, "last")
    asyncio.run(tasks())
    assert ran == ["first", "in its own way", "last"]
    (told,) = errors_in(caplog)
    assert told.startswith("background task tests.")


def test_a_durable_one_is_in_the_journal_before_the_answer(tmp_path):
    app, ran = FastAPI(), []
    perf = install(app, Settings(**QUIET, tasks={"journal_path": str(tmp_path / "tasks.db")}))

    @perf.tasks.task(name="note")
    async def note(number):
        ran.append(number)

    @app.post("/orders")
    async def order(request: Request, tasks: InBackground):
        return [
            await perf.tasks.background(request, note, 1, durable=True),
            await tasks.add_durable_task(note, 2),
        ]

    @app.post("/broken")
    async def broken(request: Request):
        await perf.tasks.background(request, note, 1, durable=True)

    with TestClient(app) as client:
        assert client.post("/orders").json() == [1, 2]

        async def all_have_run():
            await until(lambda: sorted(ran) == [1, 2])
            perf.tasks.journal._store._file.execute("PRAGMA query_only = 1")

        client.portal.call(all_have_run)
        refused = client.post("/broken")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "readonly" not in refused.text
        metrics = client.get("/metrics").text
    assert 'perf_background_durable_total{request="POST /orders"} 2' in metrics
    assert "perf_journal_accepted_total 2" in metrics
    assert 'perf_journal_refused_total{reason="unavailable"} 1' in metrics


def test_a_durable_one_without_a_journal_is_refused():
    app = FastAPI()
    perf = install(app, Settings(**QUIET))

    @perf.tasks.task(name="note")
    async def note(): ...

    @app.post("/")
    async def order(request: Request):
        await perf.tasks.background(request, note, durable=True)

    with TestClient(app) as client:
        answer = client.post("/")
        assert isinstance(answer, httpx.Response)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, False)


def test_counts_are_set_back_with_all_others():
    async def main():
        async with Tasks() as tasks:
            job = await tasks.background(None, asyncio.sleep, 0)
            await job.wait()
            assert tasks.status()["background"]["none"]["accepted"] == 1
            tasks.reset_counts()
            assert tasks.status()["background"]["none"]["accepted"] == 0

    asyncio.run(main())


def test_fastapi_takes_a_plain_parameter_of_request_tasks():
    app, ran = FastAPI(), []
    install(app, Settings(**QUIET))

    @app.get("/")
    async def plain(tasks: RequestTasks):
        tasks.add_task(ran.append, type(tasks))

    with TestClient(app) as client:
        assert client.get("/").status_code == 200
    assert ran == [BackgroundTasks]
    assert "parameters" not in app.openapi()["paths"]["/"]["get"]


def test_without_a_lifespan_they_run_with_their_response():
    app, ran = FastAPI(), []
    install(app, Settings(**QUIET))

    @app.get("/")
    async def leave(tasks: InBackground):
        tasks.add_task(ran.append, "added")

    TestClient(app).get("/")  # as a server does that runs no lifespan
    assert ran == ["added"]


def test_what_would_end_the_process_ends_its_own_task(caplog, tmp_path):
    async def main():
        async with Tasks(journal_path=tmp_path / "tasks.db") as tasks:

            async def leave():
                sys.exit(0)

            jobs = [await tasks.background(None, call) for call in (leave, sys.exit)]
            await tasks.background(None, tasks.task(name="leave")(leave), durable=True)
            for job in jobs:
                await job.wait()
                assert (job.status, type(job.error)) == ("failed", SystemExit)
            while not (letters := await tasks.journal.dead_letters()):
                await asyncio.sleep(0)
            assert letters[0]["reason"] == "SystemExit: 0"

    asyncio.run(main())
    assert len(errors_in(caplog)) == 3


def test_what_would_end_the_process_ends_its_own_task_also_where_it_runs_in_place(caplog):
    async def leave():
        sys.exit(0)

    ran = []
    tasks = BackgroundTasks()  # of no request, so of no queue
    for call in (leave, sys.exit, lambda: ran.append(1)):
        tasks.add_task(call)
    asyncio.run(tasks())
    assert ran == [1]
    assert len(errors_in(caplog)) == 2


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), BaseException("no Exception")],
    ids=["a cancellation of its own", "no Exception"],
)
def test_what_is_no_exception_stops_no_other_where_they_run_in_place(caplog, error):
    ran = []

    async def fail():
        raise error

    async def main():
        tasks = BackgroundTasks()
        tasks.add_task(fail)
        tasks.add_task(ran.append, 1)
        await tasks()

    asyncio.run(main())
    assert ran == [1]
    assert len(errors_in(caplog)) == 1


def test_a_cancellation_from_outside_ends_those_that_run_in_place():
    async def main():
        tasks = BackgroundTasks()
        tasks.add_task(asyncio.sleep, 3_600)
        running = asyncio.create_task(tasks())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


def test_what_cannot_be_enqueued_at_all_stops_no_other(caplog):
    async def main():
        ran = []

        def steps():
            yield

        async with Tasks() as tasks:
            request = StarletteRequest(http_scope("/") | {"state": {"perf": Holder(tasks)}})
            ours = BackgroundTasks(request=request)
            ours.add_task(steps)
            ours.add_task(ran.append, 1)
            await ours()
            await until(lambda: ran == [1])

    asyncio.run(main())
    assert "steps is a generator function" in caplog.text


def test_a_method_that_a_client_has_made_up_makes_no_label_of_its_own():
    async def main():
        async with Tasks() as tasks:
            for method in ("GET", "FOO", "BAR"):
                request = StarletteRequest(http_scope("/") | {"method": method})
                await tasks.background(request, bool)
            assert list(tasks.status()["background"]) == ["GET unmatched", "other unmatched"]

    asyncio.run(main())

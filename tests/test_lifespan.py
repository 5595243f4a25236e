"""The lifespan: our resources open before the app's own start-up and close after its end."""

import asyncio
import logging
import math
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from time import monotonic
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from perf_middleware import Settings, install
from perf_middleware.errors import ResourceStartError
from perf_middleware.events import Events, ResourceChanged
from perf_middleware.resource import LifespanPlugin, Resources
from tests.driving import DEADLINE_S, Server, ask, get, http_scope, served

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]

COMPLETE = ["startup.complete", "shutdown.complete"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def only_what_is_said_aloud(caplog):
    caplog.set_level(logging.WARNING, logger="perf_middleware")


class Noted:
    """A resource that notes what is done with it; `open` and `close` do what they are given."""

    def __init__(self, name, notes, *, required=True, on_open=None, on_close=None):
        self.name = name
        self.required = required
        self._notes = notes
        self._on_open = on_open
        self._on_close = on_close

    async def open(self, background):
        self._notes.append(f"open {self.name}")
        if self._on_open is not None:
            await self._on_open(background)

    async def close(self):
        self._notes.append(f"close {self.name}")
        if self._on_close is not None:
            await self._on_close()

    def status(self):
        return {}


class StartError(Exception):
    """A dependency of the app is not there."""


def fails(error):
    async def fail(*_):
        raise error

    return fail


async def hangs(*_):
    await anyio.sleep_forever()


def noting_app(notes):
    """An app by hand that notes its own start and end."""

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        notes.append("app starts")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        notes.append("app stops")
        await send({"type": "lifespan.shutdown.complete"})

    return app


def starlette_noting(make, notes, *, before=None, after=None, state=None):
    @asynccontextmanager
    async def lifespan(app):
        notes.append("app starts")
        if before is not None:
            raise before
        yield state
        notes.append("app stops")
        if after is not None:
            raise after

    async def look(request):
        return PlainTextResponse(str(request.state.pool))

    return make(lifespan=lifespan, routes=[Route("/", look)])


def plugin(app, resources, **options):
    return LifespanPlugin(app, resources=Resources(resources, **options))


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


FRAMEWORKS = pytest.mark.parametrize("make", [Starlette, FastAPI], ids=["starlette", "fastapi"])


# --- an orderly life ----------------------------------------------------------------------------


async def test_resources_open_before_the_app_and_close_after_it_in_reverse():
    notes = []
    app = plugin(noting_app(notes), [Noted(name, notes) for name in "ab"])
    async with served(app) as server:
        assert notes == ["open a", "open b", "app starts"]
        assert server.words == ["startup.complete"]
    assert notes[3:] == ["app stops", "close b", "close a"]
    assert server.words == COMPLETE


async def test_the_last_word_reaches_the_server_after_the_closing():
    """The server ends the process on it."""
    at_close = []

    async def look():
        at_close.append(list(server.words))

    async with served(plugin(noting_app([]), [Noted("a", [], on_close=look)])) as server:
        pass
    assert at_close == [["startup.complete"]]


@FRAMEWORKS
async def test_a_frameworks_lifespan_runs_inside_ours_with_its_state(make):
    notes = []
    app = starlette_noting(make, notes, state={"pool": "of connections"})
    perf = install(app)
    perf.add_resource(Noted("a", notes))
    state = {}
    async with served(app, state=state) as server:
        assert notes == ["open a", "app starts"]
        assert state == {"pool": "of connections"}
        assert (await ask(app, http_scope("/", state=dict(state)))).body == b"of connections"
        assert perf.status()["lifespan"] == "running"
    assert notes[2:] == ["app stops", "close a"]
    assert server.words == COMPLETE
    assert perf.status()["lifespan"] == "not running"


@FRAMEWORKS
async def test_an_app_may_start_and_stop_many_times(make):
    """Every `with TestClient(app)` does."""
    notes = []
    app = starlette_noting(make, notes)
    perf = install(app)
    perf.add_resource(Noted("a", notes))
    for _ in range(3):
        async with served(app) as server:
            states = {name: entry["state"] for name, entry in perf.status()["resources"].items()}
            assert set(states.values()) == {"open"}
        assert server.words == COMPLETE
    assert notes == ["open a", "app starts", "app stops", "close a"] * 3


def test_what_is_no_resource_is_refused_where_it_is_added():
    perf = install(Starlette())
    with pytest.raises(TypeError, match="no resource: it has no required, open, close, status"):
        perf.add_resource(SimpleNamespace(name="a"))


async def test_the_app_runs_in_the_task_and_context_of_the_server():
    server_says = ContextVar("server_says")
    seen = []

    async def app(scope, receive, send):
        seen.append((anyio.get_current_task().id, server_says.get()))
        server_says.set("and the app answers")

    server_says.set("hello")
    server = Server(plugin(app, []))
    server.tell("startup")
    server.tell("shutdown")
    await server.run()
    server.close()
    assert seen == [(anyio.get_current_task().id, "hello")]
    assert server_says.get() == "and the app answers"


async def test_every_change_of_state_is_told_to_who_subscribed():
    told = []
    events = Events()
    events.subscribe(ResourceChanged, told.append)
    lame = Noted("lame", [], required=False, on_open=fails(StartError("no answer")))
    async with served(plugin(noting_app([]), [Noted("a", []), lame], events=events)):
        pass
    assert [(event.resource, event.state, event.reason) for event in told] == [
        ("a", "opening", ""),
        ("a", "open", ""),
        ("lame", "opening", ""),
        ("lame", "degraded", "StartError: no answer"),
        ("lame", "closing", "StartError: no answer"),
        ("lame", "closed", "StartError: no answer"),
        ("a", "closing", ""),
        ("a", "closed", ""),
    ]


async def test_a_subscriber_that_fails_harms_nobody(caplog):
    events = Events()
    told = []
    events.subscribe(ResourceChanged, lambda _: 1 / 0)
    events.subscribe(ResourceChanged, told.append)
    async with served(plugin(noting_app([]), [Noted("a", [])], events=events)) as server:
        pass
    assert server.words == COMPLETE
    assert len(told) == 4
    assert events.failures == 4


# --- a start that fails -------------------------------------------------------------------------


async def test_a_start_is_all_or_nothing(caplog):
    notes = []
    resources = Resources(
        [
            Noted("first", notes),
            Noted("second", notes, on_open=fails(StartError("no answer"))),
            Noted("third", notes),
        ]
    )
    async with served(LifespanPlugin(noting_app(notes), resources=resources)) as server:
        assert server.said == [
            {
                "type": "lifespan.startup.failed",
                "message": "second could not start: StartError: no answer",
            }
        ]
        await server.ended()
        assert isinstance(server.raised, ResourceStartError)
    assert notes == ["open first", "open second", "close second", "close first"]
    assert resources.states() == {
        "first": ("closed", ""),
        "second": ("failed", "StartError: no answer"),
        "third": ("closed", ""),
    }
    assert lines(caplog) == ["second could not start: StartError: no answer"]


async def test_what_need_not_start_degrades_and_says_so(caplog):
    notes = []
    resources = Resources(
        [
            Noted("lame", notes, required=False, on_open=fails(StartError("no answer"))),
            Noted("a", notes),
        ]
    )
    async with served(LifespanPlugin(noting_app(notes), resources=resources)) as server:
        assert resources.status()["lame"] == {
            "state": "degraded", "required": False, "reason": "StartError: no answer",
        }  # fmt: skip
        assert notes == ["open lame", "open a", "app starts"]
    assert notes[3:] == ["app stops", "close a", "close lame"]
    assert server.words == COMPLETE
    assert lines(caplog) == ["lame is not available, going on without it: StartError: no answer"]


@pytest.mark.parametrize("required", [True, False])
async def test_an_open_that_hangs_has_a_deadline(required):
    resources = Resources(
        [Noted("slow", [], required=required, on_open=hangs)], start_timeout_s=0.02
    )
    async with served(LifespanPlugin(noting_app([]), resources=resources)) as server:
        state = "failed" if required else "degraded"
        assert resources.states()["slow"] == (state, "not open after 0.02 s")
        assert server.words == ["startup.failed" if required else "startup.complete"]


async def test_a_time_out_of_the_resource_itself_is_told_as_its_own():
    """A fixed bug: it read as if our deadline had passed."""
    lame = Noted("redis", [], required=False, on_open=fails(TimeoutError("connect to 192.0.2.1")))
    resources = Resources([lame])
    async with resources.opened():
        assert resources.states()["redis"][1] == "TimeoutError: connect to 192.0.2.1"


async def test_a_resource_whose_status_fails_is_still_listed():
    broken = Noted("a", [])
    broken.status = lambda: 1 / 0
    resources = Resources([broken])
    async with resources.opened():
        assert resources.status()["a"] == {
            "state": "open",
            "required": True,
            "detail": {"error": "ZeroDivisionError: division by zero"},
        }


async def test_resources_are_added_before_the_start_and_under_names_of_their_own():
    resources = Resources([Noted("a", [])])
    with pytest.raises(ValueError, match="named 'a' already"):
        resources.add(Noted("a", []))
    async with resources.opened():
        with pytest.raises(RuntimeError, match="before the app has started"):
            resources.add(Noted("b", []))


# --- a close that fails -------------------------------------------------------------------------


async def test_a_close_that_hangs_is_abandoned_after_its_slice(caplog):
    notes = []
    resources = [
        Noted("a", notes),
        Noted("stuck", notes, on_close=hangs),
        Noted("c", notes),
    ]
    app = plugin(noting_app(notes), resources, drain_timeout_s=0.001)
    started = monotonic()
    async with served(app) as server:
        pass
    assert notes[-3:] == ["close c", "close stuck", "close a"]
    assert server.words == COMPLETE
    assert lines(caplog) == ["stuck did not close within 0.5 s and was abandoned"]
    assert monotonic() - started < DEADLINE_S / 2


async def test_a_close_that_raises_is_logged_and_the_others_close(caplog):
    notes = []
    resources = [
        Noted("a", notes),
        Noted("broken", notes, on_close=fails(OSError("gone"))),
        Noted("c", notes),
    ]
    async with served(plugin(noting_app(notes), resources)) as server:
        pass
    assert notes[-3:] == ["close c", "close broken", "close a"]
    assert server.words == COMPLETE
    assert lines(caplog) == ["broken failed to close"]
    assert caplog.records[0].exc_info[0] is OSError


# --- tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), SystemExit(3), BaseExceptionGroup("of a task group", [SystemExit(3)])],
    ids=["an error", "an exit", "a group with one"],
)
async def test_a_background_task_that_crashes_is_logged_and_the_app_goes_on(caplog, error):
    crashed = anyio.Event()
    notes = []

    async def crash():
        crashed.set()
        raise error

    async def start(background):
        background.start("poller", crash)

    resources = Resources([Noted("a", notes, on_open=start), Noted("b", notes)])
    async with served(LifespanPlugin(noting_app(notes), resources=resources)) as server:
        await crashed.wait()
        await anyio.wait_all_tasks_blocked()
        assert resources.task_failures == 1
        assert server.words == ["startup.complete"]
        assert resources.states()["b"] == ("open", "")
    assert server.words == COMPLETE
    assert lines(caplog) == ["the background task 'poller' failed"]
    assert caplog.records[0].exc_info[1] is error


async def test_background_tasks_end_after_every_resource_is_closed():
    notes = []

    async def work():
        try:
            await anyio.sleep_forever()
        finally:
            notes.append("task ends")

    async def start(background):
        background.start("worker", work)

    async def flush():
        await anyio.wait_all_tasks_blocked()
        notes.append("a is closed")

    resource = Noted("a", notes, on_open=start, on_close=flush)
    async with served(plugin(noting_app(notes), [resource])):
        await anyio.wait_all_tasks_blocked()
    assert notes[-3:] == ["close a", "a is closed", "task ends"]


# --- cancellation -------------------------------------------------------------------------------


async def test_a_start_that_is_cancelled_closes_what_was_opened():
    notes = []
    resources = Resources([Noted("a", notes), Noted("slow", notes, on_open=hangs)])
    server = Server(LifespanPlugin(noting_app(notes), resources=resources))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run)
            server.tell("startup")
            await anyio.wait_all_tasks_blocked()
            assert notes == ["open a", "open slow"]
            tasks.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert notes[2:] == ["close slow", "close a"]
    assert server.said == []
    assert isinstance(server.raised, anyio.get_cancelled_exc_class())
    assert not resources.running
    server.close()


async def test_an_app_that_is_cancelled_is_cancelled_before_the_closing():
    notes = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            notes.append("app cleans up")

    server = Server(plugin(app, [Noted("a", notes, on_close=anyio.lowlevel.checkpoint)]))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run)
        server.tell("startup")
        await server.until("startup.complete")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert notes == ["open a", "app cleans up", "close a"]
    assert isinstance(server.raised, anyio.get_cancelled_exc_class())
    server.close()


async def test_cancellation_during_the_closing_lets_the_others_close():
    notes = []
    closing, go_on = anyio.Event(), anyio.Event()

    async def slow():
        closing.set()
        await go_on.wait()
        notes.append("slow closed")

    server = Server(
        plugin(noting_app(notes), [Noted("a", notes), Noted("slow", notes, on_close=slow)])
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run)
        server.tell("startup")
        await server.until("startup.complete")
        server.tell("shutdown")
        await closing.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            go_on.set()
    assert notes[-3:] == ["close slow", "slow closed", "close a"]
    server.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("moment", ["while opening", "while serving", "while closing"])
async def test_asyncios_own_cancel_closes_everything_and_goes_on(moment):
    """Task.cancel() passes every shield.  A fixed bug: it kept the other resources from closing."""
    notes = []
    there = asyncio.Event()

    async def stay(*_):
        there.set()
        await asyncio.sleep(math.inf)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if moment == "while serving":
            await stay()

    resources = Resources(
        [
            Noted("a", notes),
            Noted(
                "b", notes,
                on_open=stay if moment == "while opening" else None,
                on_close=stay if moment == "while closing" else None,
            ),
        ]
    )  # fmt: skip
    server = Server(LifespanPlugin(app, resources=resources))
    server.tell("startup")
    server.tell("shutdown")
    task = asyncio.create_task(server.run())
    await asyncio.wait_for(there.wait(), DEADLINE_S)
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE_S)
    assert task.cancelled()
    assert notes == ["open a", "open b", "close b", "close a"]
    assert not resources.running
    assert resources.states()["b"][0] == "closed"
    server.close()


# --- what the app does is its own ---------------------------------------------------------------


class AppError(Exception):
    """The app's own."""


@FRAMEWORKS
@pytest.mark.parametrize(
    "error",
    [
        AppError("no configuration"),
        SystemExit("no configuration"),
        ExceptionGroup("the app's own", [AppError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_start_up_of_the_app_that_fails_is_told_after_the_closing(make, error):
    """A fixed bug: SystemExit came out inside an exception group, and the process went on."""
    notes = []
    at_close = []

    async def look():
        at_close.append(list(server.words))

    app = starlette_noting(make, notes, before=error)
    install(app).add_resource(Noted("a", notes, on_close=look))
    server = Server(app)
    server.tell("startup")
    with suppress(SystemExit):  # what it catches, it has noted
        await server.run()
    assert server.raised is error
    assert notes == ["open a", "app starts", "close a"]
    assert at_close == [[]]
    assert server.words == ["startup.failed"]
    assert type(error).__name__ in server.said[0]["message"]
    server.close()


@FRAMEWORKS
async def test_an_end_of_the_app_that_fails_is_told_after_the_closing(make):
    notes = []
    error = AppError("not flushed")
    app = starlette_noting(make, notes, after=error)
    install(app).add_resource(Noted("a", notes))
    async with served(app) as server:
        pass
    assert server.raised is error
    assert notes == ["open a", "app starts", "app stops", "close a"]
    assert server.words == ["startup.complete", "shutdown.failed"]
    assert "not flushed" in server.said[1]["message"]


@pytest.mark.parametrize(
    ("before", "last_word"),
    [
        pytest.param(
            [], {"type": "lifespan.startup.failed", "message": "the disk is full"}, id="start-up"
        ),
        pytest.param(
            ["lifespan.startup.complete"],
            {"type": "lifespan.shutdown.failed", "message": "not flushed", "own": 1},
            id="shutdown",
        ),
    ],
)
async def test_what_the_app_says_of_its_failure_reaches_the_server_unchanged(before, last_word):
    notes = []

    async def app(scope, receive, send):
        await receive()
        for kind in before:
            await send({"type": kind})
            await receive()
        notes.append("app stops")
        await send(last_word)

    async with served(plugin(app, [Noted("a", notes)])) as server:
        pass
    assert notes == ["open a", "app stops", "close a"]
    assert server.said[-1] is last_word
    assert len(server.said) == len(before) + 1


async def test_an_app_that_fails_while_it_serves_is_not_hidden():
    notes = []
    error = AppError("worker died")

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise error

    async with served(plugin(app, [Noted("a", notes)])) as server:
        await server.ended()
    assert server.raised is error
    assert server.words == ["startup.complete"]
    assert notes == ["open a", "close a"]


async def test_an_app_that_listened_and_failed_without_a_word_is_not_hidden():
    """With `lifespan="on"` the server ends the process for it, as it would without us."""
    notes = []
    error = AppError("no database")

    async def app(scope, receive, send):
        await receive()
        raise error

    async with served(plugin(app, [Noted("a", notes)])) as server:
        pass
    assert server.raised is error
    assert server.said == []
    assert notes == ["open a", "close a"]


async def test_an_error_of_a_start_inside_the_app_is_the_apps():
    """A mounted bundle is opened in the app's lifespan.  A fixed bug: its failure was told as ours,
    as a second, late `startup.failed`.
    """
    error = ResourceStartError("inner", "no answer")

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise error

    async with served(plugin(app, [])) as server:
        pass
    assert server.raised is error
    assert server.words == ["startup.complete"]


# --- apps that take no part ---------------------------------------------------------------------


async def refuses(scope, receive, send):
    """Django's words."""
    raise ValueError("can only handle ASGI/HTTP connections, not lifespan.")


async def returns_at_once(scope, receive, send):
    """`if scope["type"] == "http": ...`."""


async def listens_once(scope, receive, send):
    await receive()


async def listens_to_the_end(scope, receive, send):
    await receive()
    await receive()


async def only_starts(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def only_stops(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def starts_unasked(scope, receive, send):
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize(
    "app", [refuses, returns_at_once, listens_once, only_starts, only_stops, starts_unasked]
)
async def test_an_app_that_says_little_gets_its_resources_all_the_same(app):
    notes = []
    async with served(plugin(app, [Noted("a", notes)])) as server:
        assert notes == ["open a"]
        assert server.words == ["startup.complete"]
        assert not server.returned
    assert notes == ["open a", "close a"]
    assert server.words == COMPLETE


async def test_an_app_that_listens_and_never_speaks_is_spoken_for_at_its_end():
    notes = []
    server = Server(plugin(listens_to_the_end, [Noted("a", notes)]))
    server.tell("startup")
    server.tell("shutdown")
    await server.run()
    assert notes == ["open a", "close a"]
    assert server.words == COMPLETE
    server.close()


async def listens_for_ever(scope, receive, send):
    """The loop of many tutorials, without its `return`."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


async def cleans_up_for_ever(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
    await anyio.sleep_forever()


async def stays_after_a_failed_start(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the disk is full"})
    await receive()


@pytest.mark.parametrize(
    ("app", "last_word_s", "said"),
    [
        pytest.param(listens_for_ever, math.inf, COMPLETE, id="at once when it only listens"),
        pytest.param(cleans_up_for_ever, 0.02, COMPLETE, id="after a while when it is busy"),
        pytest.param(stays_after_a_failed_start, math.inf, ["startup.failed"], id="failed start"),
    ],
)
async def test_an_app_that_does_not_return_after_its_last_word_is_ended(app, last_word_s, said):
    """A fixed bug: a server waits for that word, and we waited for the app."""
    notes = []
    resources = Resources([Noted("a", notes)])
    server = Server(LifespanPlugin(app, resources=resources, last_word_s=last_word_s))
    server.tell("startup")
    if said is COMPLETE:
        server.tell("shutdown")
    with anyio.fail_after(DEADLINE_S):
        await server.run()
    assert server.returned
    assert server.words == said
    assert notes == ["open a", "close a"]
    server.close()


async def test_an_app_that_answers_a_lifespan_like_a_request_meets_the_servers_own_error():
    """... and is then one that takes no part, as it is for the server."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    said = []
    told = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

    async def receive():
        return told.pop()

    async def send(message):
        assert message["type"].startswith("lifespan."), "what uvicorn does"
        said.append(message["type"])

    await plugin(app, [])({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- running without a lifespan, and twice ------------------------------------------------------


async def test_a_mounted_app_is_opened_by_running():
    """Starlette sends no lifespan to what it mounts."""
    notes = []
    child = Starlette()
    perf = install(child)
    perf.add_resource(Noted("a", notes))

    @asynccontextmanager
    async def lifespan(app):
        async with perf.running() as same:
            assert same is perf
            notes.append("parent starts")
            yield

    parent = Starlette(routes=[Mount("/child", child)], lifespan=lifespan)
    async with served(parent) as server:
        assert notes == ["open a", "parent starts"]
        assert perf.status()["lifespan"] == "running"
    assert notes[2:] == ["close a"]
    assert server.words == COMPLETE


async def test_an_error_in_the_block_of_running_comes_out_as_it_is():
    notes = []
    perf = install(Starlette())
    perf.add_resource(Noted("a", notes))
    error = AppError("in the block")
    with pytest.raises(AppError) as caught:
        async with perf.running():
            raise error
    assert caught.value is error
    assert notes == ["open a", "close a"]


async def test_running_says_which_resource_did_not_start():
    perf = install(Starlette())
    perf.add_resource(Noted("database", [], on_open=fails(StartError("no answer"))))
    with pytest.raises(ResourceStartError, match="database could not start: StartError: no answer"):
        async with perf.running():
            raise AssertionError("never reached")


async def test_running_twice_at_once_is_an_error():
    perf = install(Starlette())
    async with perf.running():
        with pytest.raises(RuntimeError, match="running already"):
            async with perf.running():
                raise AssertionError("never reached")
        assert perf.status()["lifespan"] == "running"
    async with perf.running():
        assert perf.status()["lifespan"] == "running"


async def test_a_second_server_on_one_app_runs_the_apps_lifespan_as_before(caplog):
    """Two test clients at once, or one app behind two ports.  The resources serve both."""
    notes = []
    app = starlette_noting(Starlette, notes)
    install(app).add_resource(Noted("a", notes))
    async with served(app) as first:
        async with served(app) as second:
            assert notes == ["open a", "app starts", "app starts"]
        assert second.words == COMPLETE
        assert notes[3:] == ["app stops"]
    assert first.words == COMPLETE
    assert notes[4:] == ["app stops", "close a"]
    assert [line for line in lines(caplog) if "once more" in line]


def test_nested_test_clients_work(caplog):
    app = starlette_noting(Starlette, [], state={"pool": 1})
    install(app)
    with TestClient(app) as one, TestClient(app) as two:
        assert one.get("/").text == two.get("/").text == "1"


def test_a_deadline_of_the_settings_reaches_the_resources():
    async def run():
        app = Starlette()
        perf = install(app, Settings(lifespan={"start_timeout_s": 0.01}))
        perf.add_resource(Noted("slow", [], on_open=hangs))
        async with served(app) as server:
            return server.said[-1]["message"]

    assert anyio.run(run) == "slow could not start: not open after 0.01 s"


def no_lifespan_lines(caplog):
    return [line for line in lines(caplog) if "no lifespan has reached this app" in line]


def test_an_app_serves_without_any_lifespan_and_says_so_once(caplog):
    perf = install(noting_http)
    for _ in range(3):
        assert get(perf, "/").body == b"hello"
    assert len(no_lifespan_lines(caplog)) == 1
    assert "perf.running()" in no_lifespan_lines(caplog)[0]
    assert "jobs of perf.tasks wait for ever" in no_lifespan_lines(caplog)[0]


async def test_an_app_mounted_in_another_installed_one_says_so_as_well(caplog):
    """A fixed bug: what it was told of the outer one's requests kept it silent."""
    inner = FastAPI()
    install(inner, Settings(service="inner"))
    outer = FastAPI()
    perf = install(outer, Settings(service="outer"))
    outer.mount("/inner", inner)
    async with perf.running():
        for _ in range(2):
            assert (await ask(outer, http_scope("/inner/none"))).status == 404
    assert len(no_lifespan_lines(caplog)) == 1


async def test_an_app_that_runs_says_nothing_of_the_kind(caplog):
    perf = install(noting_http)
    async with perf.running():
        assert (await ask(perf, http_scope("/"))).body == b"hello"
    assert no_lifespan_lines(caplog) == []


def test_an_app_that_wants_no_lifespan_is_not_told_so(caplog):
    get(install(noting_http, Settings(lifespan={"enabled": False})), "/")
    assert no_lifespan_lines(caplog) == []


async def noting_http(scope, receive, send):
    await PlainTextResponse("hello")(scope, receive, send)

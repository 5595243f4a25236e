"""Start and end: state, failures, cancellation and what is left behind are the app's own."""

import gc
import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
from tests.http.apps import hidden, starlette_app
from tests.http.servers import Journal, Server, Twins, serving, serving_twins, twins_of, with_bundle
from tests.http.wire import eventually, http_request, masked

TEXT = http_request("GET", "/text")


async def text(_: Request) -> Response:
    return PlainTextResponse("hello")


def run_to_the_end(twins: Twins, request: bytes | None = None) -> list[bytes]:
    """Serve both until they stop; what each answered to `request`."""
    answers = []
    with serving(twins.bare, twins.installed):
        if request is not None:
            answers = [twin.exchange(request) for twin in (twins.bare, twins.installed)]
    return answers


def spoken(server: Server) -> list[str]:
    """What the server logged about start and end."""
    return [line for line in server.log.lines() if "uvicorn.access" not in line]


# --- an orderly life ----------------------------------------------------------------------------


@pytest.mark.parametrize("dress", [lambda app: app, hidden], ids=["starlette", "callable"])
def test_a_lifespan_starts_and_stops_once_in_one_task(files: Path, dress):
    twins = twins_of(lambda journal: dress(starlette_app(journal, files)), lifespan="on")
    run_to_the_end(twins)
    notes = twins.both(lambda server: server.journal.about("lifespan"))
    assert notes == ["started", "stopped in its task: True"]
    assert "uvicorn.error INFO Application shutdown complete." in twins.both(spoken)


def test_an_app_serves_without_any_lifespan():
    """`lifespan="off"`, test clients and some platforms never send the messages."""
    twins = twins_of(lambda _: Starlette(routes=[Route("/text", text)]), lifespan="off")
    bare, installed = run_to_the_end(twins, TEXT)
    assert installed == bare
    assert bare.endswith(b"hello")
    twins.both(spoken)


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_root_path_is_the_servers(files: Path, http):
    """Behind a proxy that strips a prefix: the prefix is in every URL, and routes still match."""

    def build(journal: Journal) -> ASGIApp:
        return starlette_app(journal, files)

    with serving_twins(build, root_path="/prefix", http=http) as twins:
        for target, part in [
            ("/urls", b'"url":"http://example.test/prefix/urls"'),
            ("/inner/where", b'"root_path":"/prefix/inner"'),
            ("/static/plain.txt", b"plain text"),
            ("/folder", b"location: http://example.test/prefix/folder/"),
            ("/nowhere", b"404"),
        ]:
            answer = twins.both(lambda server, at=target: server.exchange(http_request("GET", at)))
            assert part in answer, target


def test_on_uvloop_the_answers_are_the_same(files: Path, key):
    with serving_twins(lambda journal: starlette_app(journal, files), loop="uvloop") as twins:
        for target in ("/json", "/static/numbers.bin", "/boom", "/state", "/thread"):
            twins.both(lambda server, at=target: server.exchange(http_request("GET", at)))


@pytest.mark.parametrize("parent", ["bare", "installed"])
def test_an_installed_app_may_be_mounted_in_another(files: Path, parent):
    """Starlette runs no lifespan of a mounted app: it must do without."""

    def build(journal: Journal, *, installed: bool) -> ASGIApp:
        child = Starlette(routes=[Route("/text", text), Mount("/deeper", text_by_hand)])
        mounted = with_bundle(child) if installed else child
        app = Starlette(routes=[Mount("/child", mounted), Route("/text", text)])
        return with_bundle(app) if installed and parent == "installed" else app

    twins = Twins(
        Server(build(Journal(), installed=False)), Server(build(Journal(), installed=True))
    )
    with serving(twins.bare, twins.installed):
        for target, status in [
            ("/text", 200),
            ("/child/text", 200),
            ("/child/deeper/x", 200),
            ("/child/no", 404),
        ]:
            answer = twins.both(lambda server, at=target: server.exchange(http_request("GET", at)))
            assert answer.startswith(b"HTTP/1.1 %d " % status), target


async def text_by_hand(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(json.dumps([scope["root_path"], scope["path"]]))(scope, receive, send)


# --- an app that fails, or does not take part ---------------------------------------------------


class StartError(Exception):
    """The app could not start."""


@asynccontextmanager
async def failing_start(_: Any) -> AsyncIterator[None]:
    raise StartError("no configuration")
    yield


@asynccontextmanager
async def failing_stop(_: Any) -> AsyncIterator[None]:
    yield
    raise StartError("could not stop")


@asynccontextmanager
async def exiting_start(_: Any) -> AsyncIterator[None]:
    raise SystemExit("no configuration")
    yield


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns from the lifespan at once."""
    if scope["type"] == "http":
        await text_by_hand(scope, receive, send)


async def careless(_: Scope, __: Receive, send: Send) -> None:
    """Never looks at the scope's type: it answers a lifespan as if it were a request."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def strict(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises for everything that is not a request."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await text_by_hand(scope, receive, send)


async def failing_without_a_word(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes part, and fails before it has said anything."""
    if scope["type"] == "lifespan":
        await receive()
        raise StartError("no configuration")
    await text_by_hand(scope, receive, send)


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it failed, politely."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the disk is full"})


async def failing_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await text_by_hand(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "not flushed"})


async def leaving_early(scope: Scope, receive: Receive, send: Send) -> None:
    """Its lifespan returns right after the start."""
    if scope["type"] == "http":
        await text_by_hand(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})


def starlette_with(lifespan: Any) -> ASGIApp:
    return Starlette(routes=[Route("/text", text)], lifespan=lifespan)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        pytest.param(lambda: starlette_with(failing_start), "no configuration", id="start"),
        pytest.param(lambda: hidden(starlette_with(failing_start)), "no conf", id="hidden start"),
        pytest.param(lambda: starlette_with(exiting_start), "SystemExit", id="exit at the start"),
        pytest.param(lambda: refusing, "the disk is full", id="refused start"),
        pytest.param(lambda: failing_without_a_word, "no configuration", id="without a word"),
    ],
)
def test_an_app_that_does_not_start_ends_the_server_as_before(app, said):
    """`lifespan="on"`: the operator asked for a process that ends when the app cannot start."""
    twins = twins_of(lambda _: app(), lifespan="on")
    run_to_the_end(twins)
    assert twins.both(lambda server: repr(server.exit)) == "SystemExit(3)"
    assert any(said in line for line in twins.both(spoken))


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(lambda: strict, id="raises for a lifespan"),
        pytest.param(lambda: failing_without_a_word, id="fails without a word"),
        pytest.param(lambda: silent, id="returns at once"),
        pytest.param(lambda: careless, id="answers as if it were a request"),
        pytest.param(lambda: leaving_early, id="leaves after the start"),
        pytest.param(lambda: failing_at_the_end, id="fails at the end"),
        pytest.param(lambda: starlette_with(failing_stop), id="starlette fails at the end"),
        pytest.param(lambda: starlette_with(None), id="starlette without one"),
    ],
)
def test_an_app_is_served_however_it_takes_part_in_the_lifespan(app):
    """`lifespan="auto"`, the default: only what the app says about itself may stop the server."""
    twins = twins_of(lambda _: app())
    bare, installed = run_to_the_end(twins, TEXT)
    assert installed == bare
    assert bare.startswith(b"HTTP/1.1 200 ")
    assert twins.both(lambda server: server.exit) is None


@pytest.mark.parametrize(
    ("app", "said"),
    [
        pytest.param(lambda: failing_at_the_end, "not flushed", id="says so"),
        pytest.param(lambda: starlette_with(failing_stop), "could not stop", id="raises"),
    ],
)
def test_a_failure_at_the_end_is_reported_as_before(app, said):
    twins = twins_of(lambda _: app(), lifespan="on")
    run_to_the_end(twins)
    assert any(said in line for line in twins.both(spoken))


def test_an_app_that_does_not_even_listen_is_served_where_a_lifespan_is_asked_for():
    """The one difference: without us such an app never starts with `lifespan="on"`.  Our resources
    need a lifespan, and the server does not say whether it insists on the app's.
    """
    server = Server(with_bundle(strict), lifespan="on")
    with serving(server):
        assert server.exchange(TEXT).startswith(b"HTTP/1.1 200 ")
    assert server.exit is None


# --- the end ------------------------------------------------------------------------------------


def test_a_server_that_stops_cancels_what_still_runs(files: Path, key):
    """The endpoint learns of it, cleans up with awaits, and the lifespan ends after it."""
    twins = twins_of(lambda journal: starlette_app(journal, files), timeout_graceful_shutdown=0)
    wires = []
    with serving(twins.bare, twins.installed):
        for server in (twins.bare, twins.installed):
            wire = server.connect()
            wires.append(wire)
            wire.send(http_request("GET", f"/wait/{key}"))
            server.journal.wait(key)
    for wire in wires:
        wire.close()
    assert twins.both(lambda server: server.journal.about(key)) == [
        "waiting",
        "cleaned up after CancelledError",
    ]
    assert twins.both(lambda server: server.journal.about("lifespan")[1:]) == [
        "stopped in its task: True"
    ]
    assert any("Cancel 1 running task" in line for line in twins.both(spoken))


def test_a_server_that_stops_lets_a_request_finish(files: Path, key):
    twins = twins_of(lambda journal: starlette_app(journal, files))
    both = (twins.bare, twins.installed)
    with serving(*both):
        wires = [server.connect() for server in both]
        for server, wire in zip(both, wires, strict=True):
            wire.send(
                http_request("POST", f"/upload/{key}", ("Content-Length", "9"), keep_alive=True)
                + b"first"
            )
            server.journal.wait(key)
            server.ask_to_stop()
            server.wait_logged("Shutting down")
            wire.send(b"last")
        answers = [masked(wire.read_to_end()) for wire in wires]
        for wire in wires:
            wire.close()
    assert answers[1] == answers[0]
    assert answers[0].endswith(b"read 9")


def test_nothing_of_the_process_is_changed_for_good(files: Path):
    """Handlers, hooks and filters belong to the app; threads and callbacks go with the server."""

    def look() -> dict[str, object]:
        return {
            "root log": (logging.root.level, list(logging.root.handlers)),
            "factory": logging.getLogRecordFactory(),
            "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
            "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace()),
            "warnings": list(warnings.filters),
            "gc": (list(gc.callbacks), gc.get_threshold(), gc.isenabled()),
            "switch interval": sys.getswitchinterval(),
        }

    before, threads_before = look(), threading.enumerate()
    server = Server(with_bundle(starlette_app(Journal(), files)))
    with serving(server):
        assert server.exchange(TEXT).startswith(b"HTTP/1.1 200 ")
    assert look() == before
    eventually(
        lambda: all(thread in threads_before for thread in threading.enumerate()),
        what="the end of the threads that the server started",
    )

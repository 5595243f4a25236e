"""Streams over a real server: no idle connection is held, whatever else needs one keeps it."""

import asyncio
import logging
import re
from contextlib import ExitStack, contextmanager

import asyncpg
import pytest

from perf_middleware.events import StreamHoldsConnection
from tests.database.streams.streaming_app import POOL, add_sync_route, build
from tests.http.servers import Server, serving
from tests.http.wire import eventually, handshake, http_request

KINDS = ["own", "begun", "main", "direct"]
EVENTS_MANY = 50


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("files") / "big.bin"
    file.write_bytes(bytes(20_000_000))
    return file


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request, big_file, tmp_path_factory):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('db')}/app.db"
        own_url = url.replace("sqlite:", "sqlite+aiosqlite:")
        options, settings = {}, {}
    else:
        url = request.getfixturevalue("postgres")
        own_url = url.replace("postgresql:", "postgresql+asyncpg:", 1)
        options = {"connect_args": {"server_settings": {"application_name": "guarded"}}}
        settings = {"application_name": "guarded"}
    app = build(url, own_url, big_file, options, **settings)
    add_sync_route(app, f"sqlite:///{tmp_path_factory.mktemp('db')}/threads.db")
    server = Server(app)
    server.app, server.backend = app, request.param
    with serving(server):
        yield server


@pytest.fixture(autouse=True)
def closed_gate(server):
    move(server, "close")
    yield
    move(server, "open")
    eventually(lambda: held(server) == 0, what="all connections are back")


def move(server, state):
    assert b"200 OK" in server.exchange(http_request("POST", f"/gate/{state}"))


def held(server, name=None):
    engines = server.app.state.engines
    return sum(e.pool.checkedout() for n, e in engines.items() if name in (None, n))


def get(server, target):
    return server.exchange(http_request("GET", target))


def figures(server, name):
    families = server.app.state.perf.database.families()
    [family] = [f for f in families if f.name == f"perf_database_stream_{name}"]
    return {tuple(v for _, v in p.labels.pairs): p.value for p in family.points}


def database_of(kind):
    return "own" if kind in ("own", "begun") else "main"


@contextmanager
def streams(server, target, count, *, until):
    """`count` open streams, each read up to `until`."""
    with ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(count)]
        for wire in wires:
            wire.send(http_request("GET", target))
        yield wires, [wire.read_until(until) for wire in wires]


def idle_in_transaction(url):
    async def ask():
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(
                "select count(*) from pg_stat_activity "
                "where state like 'idle in transaction%' and application_name = 'guarded'"
            )
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_open_streams_hold_nothing_of_a_pool_of_five(server, kind, request):
    before = figures(server, "releases")[database_of(kind),]
    with streams(server, f"/{kind}/events", EVENTS_MANY, until=b"data: begun\n\n") as (wires, read):
        # Rows that were loaded stay so.
        assert all(b"x-names: item 0,item 1,item 2\r\n" in head for head in read)
        assert held(server) == 0
        assert figures(server, "releases")[database_of(kind),] == before + EVENTS_MANY
        if server.backend == "postgresql":
            assert idle_in_transaction(request.getfixturevalue("postgres")) == 0
        for _ in range(POOL + 1):
            assert get(server, f"/{kind}/count").endswith(b"500")
        move(server, "open")
        for wire in wires:  # and what comes to need one again, has it, and gives it back
            assert b"data: then item 7\n\n" in wire.read_to_end()
    eventually(lambda: held(server) == 0, what="all connections are back")


@pytest.mark.parametrize("kind", ["own", "main"])
def test_a_download_that_nobody_reads_holds_no_connection(server, kind):
    with streams(server, f"/{kind}/file", POOL + 2, until=b"\r\n\r\n"):
        assert get(server, f"/{kind}/count").endswith(b"500")
        eventually(lambda: held(server) == 0, what="all connections are back")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_committed_stays_and_its_dependency_is_named_once(server, kind, caplog):
    told, name = [], database_of(kind)
    server.app.state.perf.events.subscribe(StreamHoldsConnection, told.append)
    before = figures(server, "kept")[name, "uncommitted"]
    number = 1_000 + 10 * KINDS.index(kind)
    with caplog.at_level(logging.WARNING, "perf_middleware.database"):
        # One after the other: SQLite has one writer.
        for extra in range(2):
            target = f"/{kind}/unsaved?number={number + extra}"
            with streams(server, target, 1, until=b"data: begun\n\n") as ([wire], _):
                assert held(server, name) == 1
                move(server, "open")
                assert b"data: then item 7\n\n" in wire.read_to_end()
            eventually(lambda: held(server) == 0, what="the connection is back")
            move(server, "close")
    assert figures(server, "kept")[name, "uncommitted"] == before + 2
    [record] = [r for r in caplog.records if "streams its response" in r.message]
    dependency = rf"{kind}_session \(.+streaming_app\.py:\d+\)"
    if kind == "direct":
        dependency = r"perf\.database\.session"
    assert re.match(
        rf"GET /{kind}/unsaved streams its response while the session of {dependency} holds a "
        rf"connection of {name}, taken at .+streaming_app\.py:\d+ in \S+unsaved\b.*: it has work "
        r"that is not committed, so .*Commit before .*scope=\"function\"",
        record.message,
    ), record.message
    [event] = told
    assert (event.route, event.database, event.reason) == (
        f"GET /{kind}/unsaved", name, "uncommitted",
    )  # fmt: skip
    commits = kind != "own"  # whose dependency never does
    assert get(server, f"/{kind}/count").endswith(b"500") != commits
    assert b"200 OK" in server.exchange(http_request("POST", "/forget"))


@pytest.mark.parametrize("kind", ["own", "main"])
def test_a_cursor_that_is_the_stream_keeps_its_connection(server, kind):
    name = database_of(kind)
    before = figures(server, "kept")[name, "needed"]
    with streams(server, f"/{kind}/cursor", 2, until=b"item 20\n") as (wires, _):
        assert held(server, name) == 2
        assert figures(server, "kept")[name, "needed"] == before + 2
        move(server, "open")
        assert all(b"item 499\n" in wire.read_to_end() for wire in wires)


@pytest.mark.parametrize("kind", ["own", "main"])
def test_clients_that_leave_at_any_time_leave_a_full_pool(server, kind):
    for target in ("events", "cursor", "file"):
        for wire in [server.connect() for _ in range(2 * POOL)]:
            wire.send(http_request("GET", f"/{kind}/{target}"))
            wire.abort()
    with streams(server, f"/{kind}/events", 2 * POOL, until=b"data: begun") as (wires, _):
        for wire in wires:
            wire.abort()
        move(server, "open")
    eventually(lambda: held(server) == 0, what="all connections are back")
    assert get(server, f"/{kind}/count").endswith(b"500")


def test_an_accepted_websocket_holds_nothing_until_it_asks_again(server):
    with ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(POOL + 1)]
        for wire in wires:
            wire.send(handshake("/own/socket"))
            assert b" 101 " in wire.read_until(b"\r\n\r\n")
        eventually(lambda: held(server) == 0, what="all connections are back")
        assert get(server, "/own/count").endswith(b"500")


def test_a_session_of_threads_is_left_alone_and_told(server, caplog):
    with caplog.at_level(logging.WARNING, "perf_middleware.database"):
        for _ in range(2):
            assert b"data: 2\n\n" in get(server, "/sync/events")
    [record] = [r for r in caplog.records if "GET /sync/events" in r.message]
    assert "the session of sync_session (" in record.message
    assert "is one of threads" in record.message
    assert figures(server, "kept")["threads", "thread"] == 2


def test_the_counts_are_in_the_status_and_can_be_reset(server):
    database = server.app.state.perf.database
    assert database.status()["own"]["streams"]["released"] > 0
    database.reset_counts()
    assert database.status()["own"]["streams"] == {
        "released": 0, "kept": {"uncommitted": 0, "thread": 0, "needed": 0}, "failures": 0,
    }  # fmt: skip

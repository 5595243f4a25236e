"""PostgreSQL stopped, restarted and frozen, while requests go on."""

import asyncio
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.database.faults.load import CLIENTS, Load
from tests.database.faults.server import postgres_of_ours
from tests.examples.servers import eventually, serving_app

CONNECTIONS = 4  # pool_size and pool_overflow_max
NEEDS_DATABASE = ("/fresh/1", "POST /write/1")
DOES_WITHOUT = ("/plain", "/cached/1", "/stale/1")
AWAY, BACK = "does not answer: ", ") answers now"
KILLED = -9


@contextmanager
def app_at(url):
    settings = {
        "URL": url,
        "POOL_SIZE": "3",
        "POOL_OVERFLOW_MAX": "1",
        "POOL_WAIT_S": "2",
        "CONNECT_S": "2",
        "STATEMENT_S": "3",
        "FINISH_S": "1",
        "APPLICATION_NAME": "faults",
    }
    env = {f"PERFORMANCE_DATABASE_{name}": value for name, value in settings.items()}
    with serving_app("tests.database.faults.app:app", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def database():
    with postgres_of_ours() as database:
        run(
            database,
            "create table items (id int, version int); insert into items values (1, 0);"
            "create table notes (id int)",
        )
        yield database


@pytest.fixture(scope="module")
def server(database):
    with app_at(database.url) as server:
        yield server


def run(database, statement):
    async def asked():
        connection = await asyncpg.connect(database.url)
        try:
            if statement.startswith("select"):
                return await connection.fetchval(statement)
            return await connection.execute(statement)
        finally:
            await connection.close()

    return asyncio.run(asked())


@pytest.fixture
def load(server):
    with Load(urlsplit(server.url).port) as load:
        eventually(lambda: is_well(load), what="everything is answered")
        yield load
    assert not load.failures, load.failures[:3]


def is_well(load):
    return all(load.now(what).status == 200 for what in CLIENTS)


def state(load):
    return load.now("/status").body


def wait_until_away(load, since_s):
    """It is told, what was in flight has ended, and each route was asked a few times after that."""
    eventually(lambda: state(load)["state"] == "degraded", what="the state is told")
    eventually(lambda: load.oldest_s() > since_s, what="no request hangs")
    known_s = time.monotonic()
    for what in CLIENTS:
        eventually(lambda w=what: len(load.since(known_s, w)) >= 2, what=what)
    assert state(load)["reason"]
    assert not state(load)["detail"]["main"]["answers"]
    return known_s


def assert_only_clear_refusals(load):
    for answer in list(load.answers):
        if answer.what in NEEDS_DATABASE:
            assert answer.status == 200 or answer.is_clear_refusal, answer
        else:
            assert answer.status == 200, answer


def assert_away(load, known_s, back_s):
    for what in NEEDS_DATABASE:
        # Those that were sent just before it came back may have met it.
        seen = [a for a in load.since(known_s, what) if a.sent_s < back_s]
        assert seen[0].is_clear_refusal, seen[0]
    assert any("stale" in a.headers["cache-status"] or "age" in a.headers
               for a in load.since(known_s, "/stale/1"))  # fmt: skip


def assert_recovered(load, server, database, version):
    eventually(lambda: state(load)["state"] == "open", what="the state is told")
    eventually(lambda: is_well(load), what="everything is answered")
    eventually(lambda: load.now(f"POST /edit/1/{version}").status == 200, what="an edit")
    assert load.now("/cached/1").body == version
    load.__exit__()
    main = eventually(lambda: at_rest(load), what="all connections are back")
    assert main["size"] == 3
    assert main["idle"] <= CONNECTIONS
    eventually(lambda: 0 < connections(database) <= CONNECTIONS, what="no connection is leaking")
    eventually(lambda: told(server, AWAY) == told(server, BACK), what="each change is told")


def at_rest(load):
    main = state(load)["detail"]["main"]
    return main if main["lent"] == main["waiting"] == 0 else None


def connections(database):
    return run(database, "select count(*) from pg_stat_activity where application_name = 'faults'")


def told(server, what):
    return server.log().count(what)


def test_a_stopped_server_costs_only_what_needs_it(load, server, database):
    before, begun_s = told(server, AWAY), time.monotonic()
    database.stop("immediate")
    try:
        known_s = wait_until_away(load, begun_s)
        back_s = time.monotonic()
    finally:
        database.start()
    assert_recovered(load, server, database, 1)
    assert_only_clear_refusals(load)
    assert_away(load, known_s, back_s)
    assert told(server, AWAY) - before <= 2  # a line for a change, none for a request


def test_a_restart_is_over_when_it_is_over(load, server, database):
    database.stop("fast")
    database.start()
    assert_recovered(load, server, database, 2)
    assert_only_clear_refusals(load)


def test_a_frozen_server_holds_nobody_for_ever(load, server, database):
    before, begun_s = told(server, AWAY), time.monotonic()
    database.freeze()
    try:
        known_s = wait_until_away(load, begun_s)
        back_s = time.monotonic()
    finally:
        database.go_on()
    assert_recovered(load, server, database, 3)
    assert_only_clear_refusals(load)
    assert_away(load, known_s, back_s)
    assert told(server, AWAY) - before <= 2


def test_a_frozen_server_does_not_hold_the_end(server, database):
    port = urlsplit(server.url).port
    assert Load(port).now("/fresh/1").status == 200
    database.freeze()
    try:
        assert server.stop() != KILLED
    finally:
        database.go_on()
    assert "was abandoned" not in server.log()
    assert "Traceback" not in server.log().rpartition("Shutting down")[2]

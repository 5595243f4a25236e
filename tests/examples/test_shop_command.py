"""`python -m examples.fastapi_app`: from the command to the last signal."""

import signal
import socket
import sqlite3
from functools import partial

import httpx2
import pytest

from tests import forked
from tests.examples.servers import ROOT, eventually, serving
from tests.examples.shop import place_order, watching
from tests.fleet.servers import RedisServer

COMMAND = ["-m", "examples.fastapi_app", "--port", "0"]


@pytest.fixture
def redis_url(tmp_path):
    server = RedisServer(tmp_path).start()
    yield server.url
    server.stop()


def run(*arguments):
    return forked.run(["-m", "examples.fastapi_app", *arguments], cwd=ROOT, timeout=300)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_it_says_where_to_look_and_ends_cleanly_with_streams_open(how):
    with serving(COMMAND) as server, httpx2.Client(base_url=server.url) as client:
        for path in ("/", "/docs", "/metrics", "/_perf/summary"):
            assert f"  {server.url}{path} " in server.log()
        assert "Authorization: Bearer" in server.log()
        order = place_order(client, (1, 1))
        with client.sse("/live/orders") as stream, watching(server, order["id"]) as updates:
            assert stream.response.status_code == 200
            assert '"placed"' in updates.recv(20)
            code = server.stop(how)
            list(stream)  # ends; it may have heard of the order's confirmation before
        assert code == (0 if how is signal.SIGINT else -signal.SIGTERM)
        assert "Application shutdown complete" in server.log()
        assert "Traceback" not in server.log()
        assert "ERROR" not in server.log()


def test_a_taken_port_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run("--port", str(port))
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"Port {port} of 127.0.0.1 is taken: choose another with --port (make demo PORT=…).\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["--port", "65536"], "--port must be 0 to 65535", id="port"),
        pytest.param(["--workers", "0"], "--workers must be 1 to 64", id="workers"),
        pytest.param(["--host", "no.such.invalid"], "Cannot listen on no.such.invalid", id="host"),
    ],
)
def test_what_cannot_be_is_said_without_a_traceback(arguments, sentence):
    refused = run(*arguments)
    assert refused.returncode != 0
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr


def test_worker_processes_share_one_shop(tmp_path):
    workers = 3
    with (
        serving([*COMMAND, "--workers", str(workers)], starts=workers) as server,
        httpx2.Client(base_url=server.url, timeout=120) as watcher,
        httpx2.Client(
            base_url=server.url, timeout=120, headers={"Connection": "close"}
        ) as customer,
        watcher.sse("/live/orders?limit=20") as stream,
    ):
        orders = {place_order(customer, (number, 1))["id"] for number in range(1, 11)}
        assert {event.json()["order_id"] for event in stream} == orders
        assert server.log().count("Filled ") == 1
        assert (
            "Nothing is cached: for several workers name a PERFORMANCE_REDIS_URL." in server.log()
        )
        server.stop()
        assert "Traceback" not in server.log()


def test_a_change_is_seen_at_once_in_all_worker_processes_that_share_redis(redis_url):
    path, workers = "/catalogue/products/7", 2
    with (
        serving(
            [*COMMAND, "--workers", str(workers)],
            env={"PERFORMANCE_REDIS_URL": redis_url},
            starts=workers,
        ) as server,
        # A connection for each request: either process may get it.
        httpx2.Client(base_url=server.url, timeout=120, headers={"Connection": "close"}) as client,
    ):
        eventually(lambda: "; hit" in client.get(path).headers["cache-status"], what="a hit")
        for price_cents in range(1_000, 1_020):
            assert client.patch(path, json={"price_cents": price_cents}).status_code == 200
            seen = [client.get(path) for _ in range(4)]
            assert {answer.json()["price_cents"] for answer in seen} == {price_cents}
        server.stop()
        assert "Traceback" not in server.log()


def test_a_named_database_keeps_its_orders(tmp_path):
    file = tmp_path / "shop.sqlite3"
    shop = partial(serving, COMMAND, env={"EXAMPLE_DATABASE": str(file)}, is_forked=True)
    with shop() as server, httpx2.Client(base_url=server.url) as client:
        assert f"Filled {file}" in server.log()
        order = place_order(client, (1, 1))
    with shop() as server, httpx2.Client(base_url=server.url) as client:
        assert "Filled" not in server.log()
        assert client.get(f"/orders/{order['id']}").json()["customer_id"] == 1


def test_a_database_of_another_version_is_refused_untouched(tmp_path):
    file = tmp_path / "shop.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    with (
        pytest.raises(AssertionError, match="was made by another version of this example"),
        serving(COMMAND, env={"EXAMPLE_DATABASE": str(file)}, is_forked=True),
    ):
        pass

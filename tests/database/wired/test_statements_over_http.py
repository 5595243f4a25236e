"""Statements under `install`, over a real server: FastAPI, lazy loads of the ORM, SQLite."""

import inspect
from types import SimpleNamespace

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import select, text

from perf_middleware import RepeatedStatements, Settings, allow_repeats, install
from tests.database.statements.shop import Base, Order, rows
from tests.http.servers import Server, serving

TOKEN = "a token of this test"
OPERATOR = {"authorization": f"Bearer {TOKEN}"}


def app_of(url):
    app = FastAPI()
    # A nanosecond, so that all of them are slow, and none has to take long.
    perf = install(
        app,
        Settings(
            database={"url": url},
            statements={"slow_s": 1e-9, "log_per_minute_max": 10_000},
            metrics={"server_timing": True, "slow_request_s": 1e-9},
            dashboard={"token": TOKEN},
            cache={"enabled": False},
        ),
    )
    told = []
    perf.events.subscribe(RepeatedStatements, told.append)

    @app.post("/fill")
    async def fill() -> None:
        async with perf.database.engine().begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with perf.database.session() as session:
            session.add_all(rows())

    @app.get("/orders")
    async def orders() -> list[int]:
        async with perf.database.session() as session:
            found = await session.scalars(select(Order))
            return [len(await order.awaitable_attrs.lines) for order in found]

    @app.get("/allowed")
    async def allowed() -> list[int]:
        with allow_repeats():
            return await orders()

    @app.get("/orders/{order_id}")
    async def order(order_id: int) -> int:
        async with perf.database.session() as session:
            found = await session.get(Order, order_id)
        if found is None:
            raise HTTPException(404)
        return found.id

    @app.post("/broken")
    async def broken() -> None:
        async with perf.database.session() as session:
            await session.execute(text("select nothing from nowhere"))

    @app.get("/nothing")
    async def nothing() -> None:
        return None

    return SimpleNamespace(app=app, perf=perf, told=told, lazy=orders)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    shop = app_of(f"sqlite:///{tmp_path_factory.mktemp('shop')}/shop.db")
    server = Server(shop.app)
    with serving(server), httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        shop.client = client
        assert client.post("/fill").status_code == 200
        yield shop


def lines_of(shop, caplog, beginning):
    """Lines of requests that are over: the next one on the same connection comes after them."""
    shop.client.get("/nothing")
    return [line for line in caplog.messages if line.startswith(beginning)]


def told_by(shop, path, **query):
    answer = shop.client.get(f"/_perf{path}", params=query, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()


def line_of(function, part):
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if part in line)


def test_a_page_that_repeats_is_told_once_with_its_line_and_the_loader_option(shop, caplog):
    for _ in range(3):
        assert shop.client.get("/orders").json() == [2] * 8
    (line,) = lines_of(shop, caplog, "repeated statement: GET /orders ran select lines ")
    assert " 8 times in one request" in line
    assert f"{__file__}:{line_of(shop.lazy, 'awaitable_attrs.lines')} in " in line
    assert "instead: .options(selectinload(Order.lines))" in line
    (event,) = shop.told
    assert (event.route, event.count) == ("GET /orders", 8)
    (finding,) = told_by(shop, "/database/statements")["findings"]
    assert finding["fix"] == event.fix == ".options(selectinload(Order.lines))"


def test_what_is_allowed_to_repeat_is_not_told(shop, caplog):
    assert shop.client.get("/allowed").json() == [2] * 8
    assert lines_of(shop, caplog, "repeated statement: GET /allowed") == []


def test_server_timing_shows_the_time_and_the_number_of_statements(shop):
    def parts(path):
        return shop.client.get(path).headers["server-timing"].split(", ")

    total, database = parts("/orders")
    assert total.startswith("total;dur=")
    assert database.startswith("db;dur=")
    assert database.endswith(';desc="9 statements"')
    assert parts("/orders/3")[1].endswith(';desc="1 statement"')
    assert len(parts("/nothing")) == 1


def test_the_line_of_a_slow_statement_names_route_place_and_no_value(shop, caplog):
    assert shop.client.get("/orders/4").json() == 4
    lines = lines_of(shop, caplog, "slow statement: select orders ")
    (line,) = [line for line in lines if " in GET /orders/{order_id} at " in line]
    assert "test_statements_over_http.py" in line
    assert "WHERE orders.id = ?" in line


def test_the_line_of_a_slow_request_has_the_time_and_number_of_its_statements(shop, caplog):
    shop.client.get("/orders")
    (line,) = lines_of(shop, caplog, "slow request: GET /orders 200 ")
    assert ", db 0." in line
    assert " s in 9 statements, " in line


def test_metrics_have_statements_by_fingerprint_and_by_route(shop):
    shop.client.get("/orders")
    shop.client.get("/nothing")
    page = shop.client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if line[:1] != "#")
    requests = float(lines['perf_database_requests_total{route="/orders"}'])
    of_orders = 'perf_database_request_{}{{route="/orders"}}'
    assert float(lines[of_orders.format("statements_total")]) == 9 * requests
    assert float(lines[of_orders.format("repeats_total")]) == requests
    assert float(lines[of_orders.format("seconds_total")]) > 0
    assert 'perf_database_requests_total{route="/nothing"}' not in lines
    assert any(line.startswith("perf_database_statement_seconds_count") for line in lines)
    assert 'perf_database_runs_total{database="main",outcome="at_once"}' in lines


def test_operators_see_pools_statements_and_what_was_slow(shop):
    shop.client.get("/orders")
    picture = told_by(shop, "/database")
    assert picture["databases"]["main"]["lent"] == 0
    assert picture["databases"]["main"]["retry"]["tokens"]["conflict"] > 0
    assert 0 < len(picture["statements"]["statements"]) <= 5
    assert picture["statements"]["slow"][-1]["route"] == "GET /orders"

    (most,) = told_by(shop, "/database/statements", top=1, by="calls")["statements"]
    assert most["statement"].startswith("SELECT lines.")
    status = told_by(shop, "/status")
    assert status["statements"]["routes"]["/orders"]["repeated"] > 0
    assert "select lines" in shop.perf.database.statements.table(by="calls").lower()


@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        pytest.param({"by": "size"}, "by must be one of seconds, calls, ", id="another order"),
        pytest.param({"top": "0"}, "top must be a whole number from 1 to ", id="none at all"),
        pytest.param({"route": "/"}, "allowed: top (", id="a parameter that is none"),
    ],
)
def test_what_cannot_be_asked_for_is_answered_with_what_can(shop, query, allowed):
    answer = shop.client.get("/_perf/database/statements", params=query, headers=OPERATOR)
    assert answer.status_code == 400
    assert allowed in answer.json()["detail"]


def test_only_operators_may_ask(shop):
    assert shop.client.get("/_perf/database").status_code == 401
    assert shop.client.get("/_perf/database/statements").status_code == 401


def test_a_statement_that_fails_is_counted_and_its_error_is_the_apps(shop):
    closes = {"connection": "close"}  # uvicorn ends it after an error
    assert shop.client.post("/broken", headers=closes).status_code == 500
    statements = told_by(shop, "/database/statements", top=100)
    (row,) = [each for each in statements["statements"] if "nowhere" in each["statement"]]
    assert (row["calls"], row["errors"]) == (1, 1)
    assert statements["failures"] == 0

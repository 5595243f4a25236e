"""N+1 in a real app: FastAPI, the ORM's lazy loads, sync and async sessions."""

import asyncio
import inspect
import logging

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.pool import StaticPool

from perf_middleware.database.statements import StatementWatch, allow_repeats
from perf_middleware.events import Events, RepeatedStatements
from tests.database.statements.shop import (
    CURRENT,
    Base,
    Customer,
    Line,
    Order,
    Requests,
    request,
    rows,
)


@pytest.fixture
def engine():
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(rows())
    yield engine
    engine.dispose()


@pytest.fixture
def told():
    return []


@pytest.fixture
def watch_of(told):
    def make(**options):
        events = Events()
        events.subscribe(RepeatedStatements, told.append)
        return StatementWatch(
            current_request=CURRENT.get, route_of=lambda record: record.route, events=events,
            **options,
        )  # fmt: skip

    return make


@pytest.fixture
def watch(watch_of, engine):
    watch = watch_of()
    watch.attach(engine)
    yield watch
    watch.detach(engine)
    assert watch.status()["failures"] == 0


def line_of(function, part):
    """`file:number` of the line of `function` that holds `part`."""
    lines, first = inspect.getsourcelines(function)
    (at,) = [n for n, line in enumerate(lines) if part in line]
    return f"{inspect.getsourcefile(function)}:{first + at}"


def customers_of_orders(session):
    return [order.customer.name for order in session.scalars(select(Order))]


def lines_of_orders(session):
    return [len(order.lines) for order in session.scalars(select(Order))]


def lines_of_customers(session):
    customers = session.scalars(select(Customer).options(selectinload(Customer.orders)))
    return [[len(order.lines) for order in customer.orders] for customer in customers]


def expired_names(session):
    orders = session.scalars(select(Customer)).all()
    session.commit()
    return [customer.name for customer in orders]


def gets_one_by_one(session):
    return [session.get(Customer, number) for number in range(1, 9)]


def texts_one_by_one(session):
    return [
        session.execute(text("select name from customers where id = :id"), {"id": n}).scalar()
        for n in range(8)
    ]


def literals_one_by_one(session):
    return [
        session.execute(text(f"select name from customers where id = {n}")).scalar()
        for n in range(8)
    ]


def inserts_one_by_one(session):
    for _ in range(6):
        session.execute(insert(Line).values(order_id=1, text="one more"))


@pytest.mark.parametrize(
    ("code", "part", "count", "fix"),
    [
        pytest.param(
            lines_of_orders, "order.lines", 8, ".options(selectinload(Order.lines))",
            id="a list that is loaded lazily",
        ),
        pytest.param(
            customers_of_orders, "order.customer", 8, ".options(joinedload(Order.customer))",
            id="a single object that is loaded lazily",
        ),
        pytest.param(
            lines_of_customers, "order.lines", 8,
            ".options(selectinload(Customer.orders).selectinload(Order.lines))",
            id="a list below one that is loaded eagerly",
        ),
        pytest.param(
            expired_names, "customer.name", 8, "sessionmaker(expire_on_commit=False)",
            id="columns that a commit has expired",
        ),
        pytest.param(
            gets_one_by_one, "session.get", 8, ".where(key.in_(keys))", id="get by primary key"
        ),
        pytest.param(texts_one_by_one, "session.execute", 8, "in_(keys)", id="text of its own"),
        pytest.param(
            literals_one_by_one, "session.execute", 8, "in_(keys)", id="values within the text"
        ),
        pytest.param(
            inserts_one_by_one, "session.execute", 6, "execute(insert(...), [{...}, ...])",
            id="rows that are inserted one by one",
        ),
    ],
)  # fmt: skip
def test_a_repeated_statement_names_its_line_and_what_to_write_instead(
    engine, watch, told, caplog, code, part, count, fix
):
    with request(watch), Session(engine) as session:
        code(session)
    (finding,) = told
    assert finding.count == count
    assert finding.where.startswith(line_of(code, part) + " in ")
    assert part in finding.source
    assert fix in finding.fix
    (line,) = caplog.messages
    assert all(each in line for each in ("GET /test", f"{count} times", finding.where, fix))
    assert watch.status()["findings"][0]["fix"] == finding.fix


def eagerly(session):
    orders = session.scalars(
        select(Order).options(selectinload(Order.lines), joinedload(Order.customer))
    )
    return [(order.customer.name, len(order.lines)) for order in orders]


def four_times_each_from_two_lines(session):
    for n in range(4):
        session.get(Customer, n + 1)
    for n in range(4):
        session.get(Customer, n + 5)


def savepoints(session):
    for _ in range(8):
        with session.begin_nested():
            session.connection()  # which has its savepoint only now


def rows_at_once(session):
    session.add_all(rows())  # on SQLite the customers go one by one: their keys are asked for
    session.flush()


@allow_repeats()
def allowed(session):
    lines_of_orders(session)


@pytest.mark.parametrize(
    "code", [eagerly, four_times_each_from_two_lines, savepoints, rows_at_once, allowed]
)
def test_what_is_no_repeat_is_not_told(engine, watch, told, code):
    with request(watch), Session(engine) as session:
        code(session)
    assert told == []


def test_an_eager_loader_that_splits_a_long_list_repeats_nothing(engine, watch_of, told):
    with Session(engine) as session, session.begin():
        session.add_all(rows(1_500))  # selectinload asks for 500 at once
    watch = watch_of(repeats_min=2)
    watch.attach(engine)
    with request(watch) as record, Session(engine) as session:
        session.scalars(select(Order).options(selectinload(Order.lines))).all()
    assert record.statements.statements > 3
    assert told == []


def test_statements_that_are_not_counted_apart_do_not_repeat(engine, watch_of, told):
    watch = watch_of(fingerprints_max=1)
    watch.attach(engine)
    with request(watch), Session(engine) as session:
        lines_of_orders(session)
    assert [row["calls"] for row in watch.status()["statements"] if row["id"] == "other"] == [8]
    assert told == []


def test_a_finding_is_told_once_for_a_route_and_counted_always(engine, watch, told, caplog):
    for route in ("GET /a", "GET /a", "GET /b"):
        with request(watch, route), Session(engine) as session:
            lines_of_orders(session)
    assert [each.route for each in told] == ["GET /a", "GET /b"]
    assert len(caplog.messages) == 2
    routes = watch.status()["routes"]
    assert (routes["GET /a"]["repeated"], routes["GET /b"]["repeated"]) == (2, 1)
    assert routes["GET /a"]["requests"] == 2
    assert routes["GET /a"]["statements"] == 2 * 9


def test_an_id_from_the_log_can_be_allowed(engine, watch_of, told):
    first, second = watch_of(), None
    for allowed_ids in ((), None):
        ids = frozenset(allowed_ids if allowed_ids is not None else [told[0].fingerprint])
        second = watch_of(allowed_repeats=ids)
        second.attach(engine)
        with request(second), Session(engine) as session:
            lines_of_orders(session)
        second.detach(engine)
    assert len(told) == 1
    assert first.status()["findings"] == second.status()["findings"] == []


def test_only_sampled_requests_are_looked_through_and_all_are_counted(engine, watch_of):
    watch = watch_of(sample_every=3)
    watch.attach(engine)
    for _ in range(7):
        with request(watch), Session(engine) as session:
            lines_of_orders(session)
    route = watch.status()["routes"]["GET /test"]
    assert (route["requests"], route["statements"], route["repeated"]) == (7, 63, 3)


def test_statements_after_the_end_of_the_request_are_not_its_own(engine, watch, told):
    with request(watch) as record, Session(engine) as session:
        session.get(Order, 1)
    token = CURRENT.set(record)
    try:
        with Session(engine) as session:
            lines_of_orders(session)
    finally:
        CURRENT.reset(token)
    assert (record.statements.tally, told) == (None, [])
    watch.request_ended(record, "GET /test")
    assert watch.status()["routes"]["GET /test"] == {
        "requests": 1, "statements": 1, "seconds": pytest.approx(0, abs=5), "repeated": 0,
    }  # fmt: skip


def test_lines_beyond_the_budget_are_counted_instead(engine, watch_of, told, caplog):
    watch = watch_of(log_per_minute_max=1)
    watch.attach(engine)
    for route in ("GET /a", "GET /b", "GET /c"):
        with request(watch, route), Session(engine) as session:
            lines_of_orders(session)
    assert len(caplog.messages) == 1
    assert len(told) == 3
    assert watch.status()["lines_suppressed"] == 2


# --- within FastAPI -----------------------------------------------------------------------------


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    text: str


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    lines: list[LineOut]


def serve(app, path):
    async def ask():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(asyncio.wait_for(ask(), 20))


def test_a_sync_endpoint_in_its_thread_is_part_of_its_request(engine, watch, told):
    app = FastAPI()

    @app.get("/orders")
    def orders():
        with Session(engine) as session:
            return [len(order.lines) for order in session.scalars(select(Order))]

    layer = Requests(app, watch)
    assert serve(layer, "/orders").json() == [2] * 8
    (finding,) = told
    assert (finding.route, finding.count) == ("/orders", 8)
    assert "in test_a_sync_endpoint" in finding.where
    assert finding.fix == ".options(selectinload(Order.lines))"
    (record,) = layer.ended
    assert record.statements.statements == 9
    assert record.statements.elapsed_ns > 0


def test_lazy_loads_while_the_response_is_made_name_the_framework_and_the_fix(engine, watch, told):
    app = FastAPI()

    def session():
        with Session(engine) as session:
            yield session

    from fastapi import Depends

    @app.get("/orders", response_model=list[OrderOut])
    def orders(session=Depends(session)):  # noqa: B008
        return session.scalars(select(Order)).all()

    assert len(serve(Requests(app, watch), "/orders").json()) == 8
    (finding,) = told
    assert finding.count == 8
    assert "sqlalchemy" not in finding.where
    assert finding.fix == ".options(selectinload(Order.lines))"


def test_an_async_session_is_followed_out_of_its_greenlet(watch_of, told, tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    watch = watch_of()
    app = FastAPI()

    @app.get("/orders")
    async def orders():
        async with AsyncSession(engine) as session:
            found = await session.scalars(select(Order))
            return [len(await order.awaitable_attrs.lines) for order in found]

    @app.get("/allowed")
    @allow_repeats()
    async def permitted():
        return await orders()

    @app.get("/nothing")
    async def nothing():
        return []

    async def main():
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session, session.begin():
            session.add_all(rows())
        watch.attach(engine)
        layer = Requests(app, watch)
        transport = httpx2.ASGITransport(layer)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            paths = ("/orders", "/allowed", "/nothing")
            answers = await asyncio.gather(*[client.get(path) for path in paths])
        await engine.dispose()
        assert [len(answer.json()) for answer in answers] == [8, 8, 0]
        return layer

    layer = asyncio.run(main())
    (finding,) = told
    assert (finding.route, finding.count) == ("/orders", 8)
    assert "test_repeats_in_an_app.py" in finding.where
    assert "awaitable_attrs.lines" in finding.source
    assert finding.fix == ".options(selectinload(Order.lines))"
    accounts = [record.statements for record in layer.ended]
    assert sorted(each.statements for each in accounts if each) == [9, 9]
    assert accounts.count(None) == 1
    assert watch.status()["failures"] == 0


def test_an_observer_that_fails_is_logged_once_and_the_work_goes_on(engine, caplog):
    def broken():
        raise LookupError("no request")

    watch = StatementWatch(current_request=broken)
    watch.attach(engine)
    with Session(engine) as session:
        assert lines_of_orders(session) == [2] * 8
    assert watch.status()["failures"] == 9
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_engine_that_is_detached_is_as_it_was(engine, watch_of):
    watch = watch_of()
    for _ in range(2):
        watch.attach(engine)
    with Session(engine) as session:
        session.get(Order, 1)
    for _ in range(2):
        watch.detach(engine)
    with Session(engine) as session:
        session.get(Order, 2)
    assert [each["calls"] for each in watch.status()["statements"]] == [1]
    assert "do_execute" not in vars(engine.dialect)

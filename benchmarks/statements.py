"""What watching its statements costs an app, for one statement.

    python -m benchmarks.statements

Each row is the same statement on SQLite in memory: on an engine that nobody watches, on a watched
one outside and inside a request, in one that is not sampled, and from a lazy load of the ORM.  The
engine does its work in microseconds, so the added ones are not lost in a server's.

A session is measured with the watch of its pool as well, as `install` puts both around an engine:
what a loan and the end of a request cost is shared by its statements.

The last table is of a request that uses no database: the attribute that it is given, and the
question at its end.
"""

from __future__ import annotations

import gc
import platform
import random
from contextlib import ExitStack
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ForeignKey, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import QueuePool, StaticPool

from benchmarks.figures import costs
from benchmarks.runner import Plan, Report, on_loop, plan_arguments, plan_of, table, write_json
from perf_middleware.database.holding.runtime import PoolWatch
from perf_middleware.database.statements import RequestAccount, StatementWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BARE: Final = "not watched"
A_REQUEST: Final = 50  # statements of one request


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship(Line)


class Record:
    """What the metrics keep of a request."""

    __slots__ = ("statements",)

    def __init__(self) -> None:
        self.statements: RequestAccount | None = None


class Unused:
    """The same without what the statements need."""

    __slots__ = ()


class Watched:
    """An engine, until `closing`, and its watch; `requests`: one is there while it is used."""

    def __init__(
        self,
        closing: ExitStack,
        *,
        watched: bool,
        requests: bool = False,
        is_pooled: bool = False,
        **options: Any,
    ) -> None:
        self.record: Record | None = None
        self.requests = requests
        pool: dict[str, Any] = {"poolclass": StaticPool}
        if is_pooled:
            pool = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
        self.engine = create_engine("sqlite://", **pool)
        closing.callback(self.engine.dispose)
        # The finding itself is rare and told once: here no line is written for it.
        self.watch = StatementWatch(
            current_request=lambda: self.record, slow_s=None, log_per_minute_max=0, **options
        )
        if watched:
            self.watch.attach(self.engine)

    def begin(self) -> None:
        self.record = Record() if self.requests else None

    def end(self) -> None:
        if self.record is not None:
            self.watch.request_ended(self.record, "GET /items")


def core(case: Watched) -> Callable[[int], Awaitable[None]]:
    """The same SELECT of Core, 50 to a request."""
    Base.metadata.create_all(case.engine)
    with case.engine.begin() as connection:
        connection.execute(insert(Order), [{"id": n} for n in range(100)])
    statement = select(Order.__table__).where(Order.id == 7)

    async def use(count: int) -> None:
        with case.engine.connect() as connection:
            for _ in range(count // A_REQUEST):
                case.begin()
                for _ in range(A_REQUEST):
                    connection.execute(statement).fetchall()
                case.end()

    return use


def lazy(case: Watched) -> Callable[[int], Awaitable[None]]:
    """A list of the ORM that is loaded lazily, 50 to a request."""
    Base.metadata.create_all(case.engine)
    with Session(case.engine) as session, session.begin():
        session.add_all([Order(lines=[Line(), Line()]) for _ in range(A_REQUEST)])

    async def use(count: int) -> None:
        for _ in range(count // A_REQUEST):
            case.begin()
            with Session(case.engine) as session:
                for order in session.scalars(select(Order)):
                    len(order.lines)
            case.end()

    return use


def sessions(
    closing: ExitStack, size: int, *, same: bool, pool: bool, statements: bool, orm: bool = True
) -> Callable[[int], Awaitable[None]]:
    """Sessions of so many SELECTs of the ORM each, one session to a request.

    `same`: one statement again and again, which is told as repeated; else each is another.
    Without `orm` they are connections and SELECTs of Core.
    """
    case = Watched(closing, watched=False, requests=True, is_pooled=True)
    Base.metadata.create_all(case.engine)
    with Session(case.engine) as session, session.begin():
        session.add_all([Order() for _ in range(A_REQUEST)])
    if statements:
        case.watch.attach(case.engine)
    if pool:
        PoolWatch("app", route_of=lambda: "/items").attach(case.engine)
    one = select(Order).where(Order.id > -1).limit(1)
    # Another fingerprint each: comments and values would not make one.
    asked = [one if same else one.order_by(*[Order.id] * (n + 1)) for n in range(size)]

    one_of_core = select(Order.__table__).where(Order.id == 1)
    asked_of_core = [one_of_core.order_by(*[Order.id] * (n + 1)) for n in range(size)]

    async def use_core(count: int) -> None:
        for _ in range(max(count // size, 1)):
            case.begin()
            with case.engine.connect() as connection:
                for statement in asked_of_core:
                    connection.execute(statement).first()
            case.end()

    async def use(count: int) -> None:
        for _ in range(max(count // size, 1)):
            case.begin()
            with Session(case.engine, expire_on_commit=False) as session:
                for statement in asked:
                    session.scalars(statement).all()
                session.commit()
            case.end()

    return use if orm else use_core


def nothing(kind: type[Any], watch: StatementWatch) -> Callable[[int], Awaitable[None]]:
    """A request that uses no database."""
    asks = kind is Record

    async def use(count: int) -> None:
        for _ in range(count):
            record = kind()
            if asks and record.statements is not None:
                watch.request_ended(record, "GET /items")

    return use


async def rounds_of(
    cases: dict[str, Callable[[int], Awaitable[None]]], plan: Plan
) -> dict[str, list[float]]:
    """CPU microseconds per statement of each case in each round, in an order that changes."""
    rounds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    shuffle = random.Random(plan.seed).shuffle
    until_ns = perf_counter_ns() + round(plan.seconds_max * 1e9)
    for name in order:
        await cases[name](plan.requests)
    for _ in range(plan.rounds):
        shuffle(order)
        for name in order:
            gc.collect()  # none pays for the cycles that another has left
            began_ns = process_time_ns()
            await cases[name](plan.requests)
            rounds[name].append((process_time_ns() - began_ns) / plan.requests / 1000)
        if perf_counter_ns() >= until_ns:
            break
    return rounds


def report_of(title: str, cases: dict[str, Callable[[int], Awaitable[None]]], plan: Plan) -> Report:
    """One table, against the row BARE."""
    rounds = on_loop(plan.loop, rounds_of(cases, plan))
    return Report(
        title=title, baseline=BARE, peer=None, rounds=len(rounds[BARE]), requests=plan.requests,
        loop=plan.loop, python=platform.python_version(), costs=costs(rounds, baseline=BARE),
    )  # fmt: skip


def reports(plan: Plan) -> list[Report]:
    """All tables."""
    with ExitStack() as closing:
        return _reports(plan, closing)


def _reports(plan: Plan, closing: ExitStack) -> list[Report]:
    def rows(use: Callable[[Watched], Callable[[int], Awaitable[None]]]) -> dict[str, Any]:
        return {
            BARE: use(Watched(closing, watched=False)),
            "watched, outside a request": use(Watched(closing, watched=True)),
            "watched, in a request": use(Watched(closing, watched=True, requests=True)),
            "watched, in a request that is not sampled": use(
                Watched(closing, watched=True, requests=True, repeats_min=None)
            ),
        }

    def sessions_of(size: int, *, same: bool, orm: bool = True) -> dict[str, Any]:
        def case(*, pool: bool, statements: bool) -> Callable[[int], Awaitable[None]]:
            return sessions(closing, size, same=same, pool=pool, statements=statements, orm=orm)

        return {
            BARE: case(pool=False, statements=False),
            "the pool watched": case(pool=True, statements=False),
            "the statements watched": case(pool=False, statements=True),
            "both, as install does": case(pool=True, statements=True),
        }

    watch = StatementWatch()
    return [
        report_of("a SELECT of Core", rows(core), plan),
        report_of("a lazy load of the ORM", rows(lazy), plan),
        report_of(
            "a session of one statement of Core, loan included",
            sessions_of(1, same=False, orm=False),
            plan,
        ),
        *(
            report_of(
                f"a SELECT of the ORM, {size} {'the same' if same else 'different'} in a session, "
                "loan included",
                sessions_of(size, same=same),
                plan,
            )
            for size, same in ((1, False), (5, False), (5, True), (20, False))
        ),
        report_of(
            "a request that uses no database",
            {BARE: nothing(Unused, watch), "watched": nothing(Record, watch)},
            plan,
        ),
    ]


def main() -> None:
    defaults = Plan(rounds=200, requests=500, seconds_max=10.0, loop="asyncio")
    parser = plan_arguments(__doc__, defaults=defaults)
    options = parser.parse_args()
    found = reports(plan_of(options))
    print("\n\n".join(table(report) for report in found))
    write_json(options.json, found)


if __name__ == "__main__":
    main()

"""The shop's database: where it is, and how its tables get their first rows.

It is `perf.database`: SQLite in a file, or what PERFORMANCE_DATABASE_URL names.
"""

import logging
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from pydantic import SecretStr
from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from examples.fastapi_app.seed import seed_rows
from examples.fastapi_app.tables import (
    Category,
    Customer,
    Order,
    OrderEvent,
    OrderLine,
    Product,
    Table,
)
from perf_middleware import Perf, Settings

Result = TypeVar("Result")
Sessions: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""`perf.database.session`: a block that ends well is committed, any error rolls back."""

PATH_VARIABLE = "EXAMPLE_DATABASE"
WRITER_S_MAX = 60.0  # SQLite has one writer: how long another one waits for it
SCHEMA_VERSION = 1  # raise it when tables.py or seed.py changes; kept in SQLite's user_version
FILLING = 7_305_001  # the number of PostgreSQL's lock for it, any that nobody else takes

logger = logging.getLogger("uvicorn.error")  # the example's lines appear among the server's


class Run(Protocol):
    """`perf.database.run`: a whole transaction, done again where another one was first."""

    async def __call__(self, unit: Callable[[AsyncSession], Awaitable[Result]], /) -> Result: ...


def with_database(settings: Settings) -> tuple[Settings, Path | None]:
    """Settings that name a database, and the file that goes with the app if it is of no one else.

    A URL in the settings counts first, then the file that EXAMPLE_DATABASE names.
    """
    if settings.database.url is not None:
        return settings, None
    named = os.environ.get(PATH_VARIABLE)
    path = Path(named or tempfile.gettempdir(), "" if named else _file_name()).absolute()
    database = settings.database.model_copy(
        update={"url": SecretStr(f"sqlite:///{path}"), "sqlite_busy_s": WRITER_S_MAX}
    )
    return settings.model_copy(update={"database": database}), None if named else path


def _file_name() -> str:
    return f"perf-middleware-example-{secrets.token_hex(8)}.sqlite3"


@asynccontextmanager
async def filled(perf: Perf, temporary: Path | None) -> AsyncIterator[None]:
    """The tables with their first rows; the file `temporary` is deleted after the block."""
    engine = perf.database.engine()
    try:
        started_s = time.perf_counter()
        async with engine.connect() as connection:
            fill_once = _FILL_ONCE[engine.dialect.name]
            if await fill_once(connection):
                place = engine.url.database  # without its password
                logger.info("Filled %s in %.2f s", place, time.perf_counter() - started_s)
        yield
    finally:
        if temporary is not None:
            await engine.dispose()
            for ending in ("", "-wal", "-shm"):
                Path(f"{temporary}{ending}").unlink(missing_ok=True)


async def _fill_sqlite_once(connection: AsyncConnection) -> bool:
    """Create and fill the tables, unless this file has them.

    IMMEDIATE takes SQLite's write lock before looking: of several worker processes one fills,
    the others wait and then find it done.
    """
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    await connection.exec_driver_sql("BEGIN IMMEDIATE")
    version: int = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
    if version not in (0, SCHEMA_VERSION):
        path = connection.engine.url.database
        raise RuntimeError(f"{path} was made by another version of this example: delete it")
    if version == 0:
        await connection.run_sync(_fill)
        await connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    await connection.exec_driver_sql("COMMIT")
    return version == 0


async def _fill_postgresql_once(connection: AsyncConnection) -> bool:
    """The same where a lock of its own lets one process fill, and tables say that it is done."""
    async with connection.begin():
        await connection.execute(select(func.pg_advisory_xact_lock(FILLING)))
        if await connection.run_sync(lambda sync: inspect(sync).has_table(Product.__tablename__)):
            return False
        await connection.run_sync(_fill)
        for table in (Category, Product, Customer, Order):  # their rows brought ids of their own
            name = table.__tablename__
            await connection.execute(
                text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}")
            )
    return True


_FILL_ONCE: dict[str, Callable[[AsyncConnection], Any]] = {
    "sqlite": _fill_sqlite_once,
    "postgresql": _fill_postgresql_once,
}


def _fill(connection: Connection) -> None:
    Table.metadata.create_all(connection)
    rows = seed_rows()
    connection.execute(insert(Category), rows.categories)
    connection.execute(insert(Product), rows.products)
    connection.execute(insert(Customer), rows.customers)
    connection.execute(insert(Order), rows.orders)
    connection.execute(insert(OrderLine), rows.order_lines)
    connection.execute(insert(OrderEvent), rows.order_events)

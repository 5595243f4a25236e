"""SQLite behind SQLAlchemy: opened, and filled once, for as long as the app lives."""

import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection, event, insert
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

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

Sessions: TypeAlias = async_sessionmaker[AsyncSession]

PATH_VARIABLE = "EXAMPLE_DATABASE"
SCHEMA_VERSION = 1  # raise it when tables.py or seed.py changes; kept in SQLite's user_version
CONNECTIONS_MAX = 10

logger = logging.getLogger("uvicorn.error")  # the example's lines appear among the server's


@asynccontextmanager
async def open_database() -> AsyncIterator[Sessions]:
    """Sessions on the file that EXAMPLE_DATABASE names, or on a new one that goes with the app."""
    with tempfile.TemporaryDirectory(prefix="perf-middleware-example-") as directory:
        path = Path(os.environ.get(PATH_VARIABLE) or Path(directory, "shop.sqlite3"))
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{path}", pool_size=CONNECTIONS_MAX, max_overflow=0
        )
        event.listen(engine.sync_engine, "connect", _set_pragmas)
        try:
            await _fill_once(engine, path)
            yield async_sessionmaker(engine, expire_on_commit=False)
        finally:
            await engine.dispose()


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")  # readers and the one writer do not wait
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


async def _fill_once(engine: AsyncEngine, path: Path) -> None:
    """Create and fill the tables, unless this file has them.

    IMMEDIATE takes SQLite's write lock before looking: of several worker processes one fills,
    the others wait and then find it done.
    """
    started_s = time.perf_counter()
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        version = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
        if version not in (0, SCHEMA_VERSION):
            raise RuntimeError(f"{path} was made by another version of this example: delete it")
        if version == 0:
            await connection.run_sync(_fill)
            await connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        await connection.exec_driver_sql("COMMIT")
    if version == 0:
        logger.info("Filled %s in %.2f s", path, time.perf_counter() - started_s)


def _fill(connection: Connection) -> None:
    Table.metadata.create_all(connection)
    rows = seed_rows()
    connection.execute(insert(Category), rows.categories)
    connection.execute(insert(Product), rows.products)
    connection.execute(insert(Customer), rows.customers)
    connection.execute(insert(Order), rows.orders)
    connection.execute(insert(OrderLine), rows.order_lines)
    connection.execute(insert(OrderEvent), rows.order_events)

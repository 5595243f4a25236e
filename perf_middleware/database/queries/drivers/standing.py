"""Where a session stands: whether a kept answer may stand in for what it would read now.

Asked before each look-up, so nothing here waits, and nothing takes a connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from perf_middleware.database.isolation import level_of
from perf_middleware.database.own_listeners import has_listener_of_app
from perf_middleware.database.queries.reasons import (
    OFF,
    SNAPSHOT,
    STATE,
    UNSAVED,
    UNTRACKED,
    WROTE,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


def trackings_of(engine: Engine) -> list[Any]:
    """Those who track what this engine reads and writes."""
    return list(engine.dialect.__dict__.get("perf_trackings", ()))


def tables_of(engine: Engine) -> Any:
    """What knows the tables of this engine's statements; None: nobody does."""
    return engine.dialect.__dict__.get("perf_tables")


def bypass_of(session: Session, bind: Engine | Connection, *, is_named: bool) -> str | None:
    """Why the cache is not asked for a query of `session` on `bind`; None: it may be.

    `is_named`: the caller has said what the answers depend on beside their statement (`vary`).
    """
    if session.new or session.deleted or session.dirty:
        return UNSAVED
    trackings = trackings_of(bind.engine)
    if not any(tracking.is_active for tracking in trackings):
        return UNTRACKED
    events = session.dispatch
    if not is_named and (events.do_orm_execute or has_listener_of_app(events.after_begin)):
        return STATE  # an event of the app's may write another statement, or SET who is asking
    connection = connection_of(session, bind)
    level = level_of(bind if connection is None else connection)
    is_sqlite = bind.dialect.name == "sqlite"
    if level == "SERIALIZABLE" and not is_sqlite:
        return SNAPSHOT  # the database has to know of each read
    if connection is None:
        return None
    if connection.closed or connection.invalidated:
        return OFF
    if any(tracking.has_written(connection.info) for tracking in trackings):
        return WROTE
    if is_sqlite:
        driver = getattr(connection.connection, "driver_connection", None)
        return SNAPSHOT if getattr(driver, "in_transaction", False) else None
    return SNAPSHOT if level in ("REPEATABLE READ", "SNAPSHOT") else None


def held_by(session: Session) -> list[Engine | Connection]:
    """Of what its transaction holds connections now."""
    transaction = session.get_transaction()
    if transaction is None:
        return []
    held = transaction._connections.values()  # noqa: SLF001 no public name
    return list({id(each[0]): each[0].engine for each in held}.values())


def connection_of(session: Session, bind: Engine | Connection) -> Connection | None:
    """The connection that `session` holds of `bind`; None: it would take one first."""
    if isinstance(bind, Connection):
        return bind if bind.in_transaction() else None
    transaction = session.get_transaction()
    if transaction is None:
        return None
    held = transaction._connections.get(bind)  # noqa: SLF001 no public name
    return None if held is None else held[0]

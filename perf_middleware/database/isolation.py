"""Isolation levels as SQLAlchemy takes them: in any case, with spaces or underscores.

It keeps what it was given, also in its own `_is_autocommit_isolation`, which knows capitals alone;
`get_isolation_level` asks the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def level_asked_for(bind: Engine | Connection) -> str:
    """The level that this connection, or its engine, was given; "" where nobody has said one."""
    level = bind.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(bind.dialect, "_on_connect_isolation_level", None)
    return "" if level is None else _normal(level)


def level_of(bind: Engine | Connection) -> str:
    """The level asked for, else what the server begins with; "" while that is not known."""
    return level_asked_for(bind) or _normal(
        getattr(bind.dialect, "default_isolation_level", None) or ""
    )


def _normal(level: Any) -> str:
    return str(level).replace("_", " ").upper()

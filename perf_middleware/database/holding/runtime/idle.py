"""What a pool would do first when a connection is asked for: take one that is idle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def taker_of_idle(pool: Any) -> Callable[[bool], Any] | None:
    """Takes an idle connection out of the queue of `pool`, or raises the queue's Empty.

    None where that would pass something by: a pool of another kind, or methods around its own.
    Source: SQLAlchemy, `QueuePool._do_get`, which begins with the same step.
    """
    from sqlalchemy.pool import QueuePool

    if type(pool)._do_get is not QueuePool._do_get or "_do_get" in vars(pool):  # noqa: SLF001
        return None
    take: Callable[[bool], Any] = pool._pool.get  # noqa: SLF001
    return take

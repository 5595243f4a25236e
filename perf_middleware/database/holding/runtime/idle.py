"""The idle connections of a pool: what its methods would do first, without the methods."""

from __future__ import annotations

from asyncio import QueueEmpty, QueueFull
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED: Final = {"get", "get_nowait", "put", "put_nowait"}  # somebody may stand around these


class Idle(NamedTuple):
    """The queue of a pool: `take` raises `is_empty`, `put` raises `is_full`, neither waits.

    `put` is None where the pool's own way is as short.
    """

    take: Callable[[], Any]
    is_empty: type[Exception]
    put: Callable[[Any], object] | None = None
    is_full: type[Exception] = Exception


def idle_of(pool: Any) -> Idle | None:
    """The queue that `pool` takes an idle connection from, and puts one into, before all else.

    None where that would pass something by: a pool of another kind, or methods around its own.
    Source: SQLAlchemy, `QueuePool._do_get` and `_do_return_conn`, which begin with the same steps;
    `AsyncAdaptedQueue`, which does no more than to ask asyncio's.
    """
    from sqlalchemy.pool import QueuePool
    from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty

    kind: Any = type(pool)
    for name in ("_do_get", "_do_return_conn"):
        if getattr(kind, name) is not getattr(QueuePool, name) or name in vars(pool):
            return None
    queue = pool._pool  # noqa: SLF001 - no name of its own
    if type(queue) is AsyncAdaptedQueue and not vars(queue).keys() & ASKED:
        adapted = queue._queue  # noqa: SLF001 - no name of its own
        return Idle(adapted.get_nowait, QueueEmpty, adapted.put_nowait, QueueFull)
    return Idle(partial(queue.get, False), Empty)

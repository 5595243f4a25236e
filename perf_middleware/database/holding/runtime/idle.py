"""The idle connections of a pool: what its methods would do first, without the methods."""

from __future__ import annotations

from asyncio import QueueEmpty, QueueFull
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

ASKED: Final = {"get", "get_nowait", "put", "put_nowait"}  # somebody may stand around these


class Idle(NamedTuple):
    """The queue of a pool: `take` raises `is_empty`, `put` raises `is_full`, neither waits."""

    take: Callable[[], Any]
    is_empty: type[Exception]
    put: Callable[[Any], object]
    is_full: type[Exception]


def idle_of(pool: Any) -> Idle | None:
    """The queue that `pool` takes an idle connection from, and puts one into, before all else.

    None where that would pass something by: a pool or queue of another kind, or methods around its
    own.
    Source: SQLAlchemy, `QueuePool._do_get` and `_do_return_conn`, which begin with the same steps;
    `AsyncAdaptedQueue`, which does no more than to ask asyncio's; `Queue`.
    """
    from sqlalchemy.pool import QueuePool
    from sqlalchemy.util.queue import AsyncAdaptedQueue, Queue

    kind: Any = type(pool)
    for name in ("_do_get", "_do_return_conn"):
        if getattr(kind, name) is not getattr(QueuePool, name) or name in vars(pool):
            return None
    queue = pool._pool  # noqa: SLF001 - no name of its own
    if vars(queue).keys() & ASKED:
        return None
    if type(queue) is AsyncAdaptedQueue:
        adapted = queue._queue  # noqa: SLF001 - no name of its own
        return Idle(adapted.get_nowait, QueueEmpty, adapted.put_nowait, QueueFull)
    return _of_threads(queue) if type(queue) is Queue else None


def _of_threads(queue: Any) -> Idle:
    """A queue of threads under its own lock, without its eight calls for each connection.

    Who waits is one of those that take: a pool puts without a wait.
    """
    mutex, items, size_max = queue.mutex, queue.queue, queue.maxsize
    first = items.pop if queue.use_lifo else items.popleft
    wake_one = queue.not_empty.notify

    def take() -> Any:
        with mutex:
            return first()

    def put(record: Any) -> None:
        with mutex:
            if len(items) == size_max > 0:
                raise QueueFull
            items.append(record)
            wake_one()

    return Idle(take, IndexError, put, QueueFull)

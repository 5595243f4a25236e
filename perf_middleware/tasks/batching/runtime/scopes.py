"""What one request has asked, until it ends."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from perf_middleware.tasks.batching.runtime.batches import Entry


class BatchScope:
    """The look-ups of one request by function; nothing is remembered once it has ended."""

    __slots__ = ("_tables", "is_over")

    def __init__(self) -> None:
        # Each owner is held with its table: its id must not become another one's meanwhile.
        self._tables: dict[tuple[object, int], tuple[object, dict[Hashable, Entry]]] = {}
        self.is_over = False

    def table(self, core: object, owner: Any) -> dict[Hashable, Entry]:
        """What was asked of one batched function, of one object for a method."""
        named = (core, id(owner))
        found = self._tables.get(named)
        if found is None:
            found = self._tables[named] = (owner, {})
        return found[1]

    def end(self) -> None:
        """Forget it all; tasks that outlive the request ask anew each time."""
        self.is_over = True
        self._tables.clear()


CURRENT: Final[ContextVar[BatchScope | None]] = ContextVar(
    "perf_middleware.batch_scope", default=None
)


def current_scope() -> BatchScope | None:
    """The scope of the request that runs here, or None outside of one."""
    scope = CURRENT.get()
    return None if scope is None or scope.is_over else scope


@contextmanager
def batch_scope() -> Iterator[None]:
    """What is asked within the block with `cache="request"` is asked once, as within a request.

    For what is no HTTP request: a message of a websocket, a job, a test.  Within another scope it
    begins anew.
    """
    scope = BatchScope()
    token = CURRENT.set(scope)
    try:
        yield
    finally:
        scope.end()
        CURRENT.reset(token)

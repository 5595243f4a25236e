"""What one request has asked, until it ends."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from contextvars import Context

    from perf_middleware.tasks.batching.runtime.batches import Entry


class Remembered:
    """What one request has asked of one batched function, of one object for a method.

    By who shares a call, too: what was read as one user is not given to another one, although
    both may be in one request.
    """

    __slots__ = ("_max", "_size", "_tables", "owner")

    def __init__(self, owner: Any, remembered_max: int) -> None:
        self.owner = owner  # held: its id must not become another one's meanwhile
        self._max = remembered_max
        self._size = 0
        # Each context is held with its table: a group may be of ids of what is in it.
        self._tables: dict[Any, tuple[Context, dict[Hashable, Entry]]] = {}

    def get(self, key: Hashable, group: Any) -> Entry | None:
        """What was asked for `key` by those who share calls."""
        found = self._tables.get(group)
        return None if found is None else found[1].get(key)

    def keep(self, key: Hashable, entry: Entry, *, group: Any, context: Context) -> None:
        """Remember it, in the place of what was there; nothing where there is no room."""
        found = self._tables.get(group)
        if found is None or key not in found[1]:
            if self._size >= self._max:
                return
            self._size += 1
        if found is None:
            found = self._tables[group] = (context, {})
        found[1][key] = entry

    def forget(self, *keys: Hashable) -> None:
        """Have these asked for anew, whoever shares a call; everything where none is named."""
        if not keys:
            self._tables.clear()
            self._size = 0
        for group, (_, table) in list(self._tables.items()):  # a thread may ask meanwhile
            for key in keys:
                if table.pop(key, None) is not None:
                    self._size -= 1
            if not table:  # a task that has its own contextvars, and has primed, leaves none behind
                self._tables.pop(group, None)


class BatchScope:
    """The look-ups of one request by function; nothing is remembered once it has ended."""

    __slots__ = ("_tables", "is_over")

    def __init__(self) -> None:
        self._tables: dict[tuple[object, int], Remembered] = {}
        self.is_over = False

    def of(self, core: object, owner: Any, remembered_max: int) -> Remembered:
        """What was asked of one batched function, of one object for a method."""
        named = (core, id(owner))
        found = self._tables.get(named)
        if found is None:
            found = self._tables[named] = Remembered(owner, remembered_max)
        return found

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

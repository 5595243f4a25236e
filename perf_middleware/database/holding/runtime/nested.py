"""Names who waits in vain for a connection while it holds one itself: maybe it waits for itself.

Only tasks are told apart: a thread of a pool serves another request before the loan of one ends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from perf_middleware.database.holding.loans import told_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.database.holding.loans import Loan
    from perf_middleware.database.holding.runtime.lines import AppLines

logger = logging.getLogger("perf_middleware.database")

TOLD_MAX: Final = 100  # routes

_tasks: Any = asyncio.tasks
# `current_task` with the loop, which is C's from 3.12 on; before, what it looks into.
task_of: Final[Callable[[Any], asyncio.Task[Any] | None]] = (
    asyncio.current_task if sys.version_info >= (3, 12) else _tasks._current_tasks.get  # noqa: SLF001 - no name of its own
)


def holder_now() -> ref[asyncio.Task[Any]] | None:
    """The task that takes a connection; None where no task runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else ref(task)


class NestedLoans:
    """Tells them for one pool, once for each route."""

    def __init__(self, pool: str, lines: AppLines) -> None:
        self._pool = pool
        self._lines = lines
        self._told: set[str | None] = set()

    def tell(
        self, loans: Iterable[Loan], *, route: str | None, connections: int, waited_s: float
    ) -> None:
        """Whoever runs has waited in vain; `loans` are all that last."""
        holder = holder_now()
        if holder is None or route in self._told or len(self._told) >= TOLD_MAX:
            return
        own = [loan for loan in loans if loan.holder == holder]
        if not own:
            return
        self._told.add(route)
        for loan in own:
            loan.lines = self._lines.lines_of(loan.spots)
        logger.warning(
            "%s",
            told_nested(
                own, route=route, pool=self._pool, connections=connections, waited_s=waited_s
            ),
        )

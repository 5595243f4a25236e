"""The loans of a pool that last, and what is counted as each begins and ends.

Both ends of a loan come by here, so this is plain: a loan is a tuple until somebody asks for it,
which is 0.5 us less than an object, and few are asked for.
An error of ours must never reach who takes a connection.
"""

from __future__ import annotations

from asyncio import current_task
from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

from perf_middleware.clock import monotonic_us
from perf_middleware.database.holding.loans import Loan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.database.holding.admission import Lengths
    from perf_middleware.database.holding.figures import PoolCounts
    from perf_middleware.database.holding.runtime.lines import AppLines, Spot

LOANS_MAX: Final = 10_000  # that are remembered at once: a NullPool has no bound of its own
NO_SPOTS: Final[tuple[Spot, ...]] = ()
PINGING: Final[ContextVar[bool]] = ContextVar("perf_middleware.pinging", default=False)
"""Set while a connection is taken only to see whether the database answers: no measure of loans."""

# Since when, the route, the spots, whether it is ours, who has left it behind, the task.
Lent: TypeAlias = "tuple[int, str | None, Sequence[Spot], bool, str | None, object]"


class Lending:
    """The loans of one pool, from `begin` to `end`; `lines` is None where nobody is told."""

    def __init__(
        self,
        *,
        counts: PoolCounts,
        lengths: Lengths,
        lines: AppLines | None,
        route_of: Callable[[], str | None],
        left_by: Callable[[], str | None],
        failed: Callable[[Exception], object],
        clock: Clock,
    ) -> None:
        self._loans: dict[int, Lent | Loan] = {}
        self._loans_max = 0
        self._counts = counts
        self._note_length = lengths.note
        self._lines = lines
        self._route_of = route_of
        self._left_by = left_by
        self._failed = failed
        self._clock = clock
        self._clock_is_given = clock is not monotonic_us

    def __len__(self) -> int:
        return len(self._loans)

    def lent(self, record: object) -> None:
        """A connection is lent, by its entry in the pool; to whoever runs."""
        loans, key = self._loans, id(record)
        # A queue's `_do_get` may call itself, and a StaticPool lends its one connection to many.
        if key in loans or len(loans) >= self._loans_max:
            return
        route = left_by = holder = None
        spots: Sequence[Spot] = NO_SPOTS
        try:
            if self._lines is not None:
                spots = self._lines.now()
            route = self._route_of()
            if route is None:
                left_by = self._left_by()
        except Exception as error:  # noqa: BLE001 - an observer's
            self._failed(error)
        try:
            task = current_task()
            if task is not None:
                holder = ref(task)
        except RuntimeError:  # a thread without an event loop
            pass
        # Without the call of our own clock, which takes as long as to read it.
        now_us = self._clock() if self._clock_is_given else perf_counter_ns() // 1000
        loans[key] = now_us, route, spots, PINGING.get(), left_by, holder
        counts = self._counts
        counts.loans += 1
        if len(loans) > counts.most_lent:
            counts.most_lent = len(loans)

    def returned(self, record: Any) -> None:
        """A connection comes back."""
        loan = self._loans.pop(id(record), None)
        if loan is None:
            return
        now_us = self._clock() if self._clock_is_given else perf_counter_ns() // 1000
        if isinstance(loan, tuple):
            route, is_ours = loan[1], loan[3]
            held_us = work_us = now_us - loan[0]
        else:
            route, is_ours = loan.route, loan.is_ours
            held_us, work_us = now_us - loan.since_us, loan.work_us(now_us)
        # One that was lost, maybe before anybody had it, says nothing of how long others take.
        if not is_ours and record.dbapi_connection is not None:
            self._note_length(route, work_us)
        self._counts.note_held(route, held_us)

    def loan_of(self, record: object) -> Loan | None:
        """The loan of this connection, if it is lent."""
        return self._known(id(record))

    def all(self) -> list[Loan]:
        """Those that last."""
        loans = [self._known(key) for key in list(self._loans)]
        return [loan for loan in loans if loan is not None]

    def begin(self) -> None:
        """Loans are remembered from now on."""
        self._loans_max = LOANS_MAX

    def end(self) -> None:
        """They are so no more, and nothing is known of any."""
        self._loans_max = 0
        self._loans.clear()

    def _known(self, key: int) -> Loan | None:
        lent = self._loans.get(key)
        if not isinstance(lent, tuple):
            return lent
        since_us, route, spots, is_ours, left_by, holder = lent
        loan = Loan(since_us, route, spots=spots, is_ours=is_ours, left_by=left_by, holder=holder)
        # Another thread may have given it back. It gets no turn between this look and this step.
        loans = self._loans
        if key in loans and loans[key] is lent:
            loans[key] = loan
        return loan

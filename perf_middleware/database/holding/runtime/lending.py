"""The loans of a pool that last, and what is counted as each begins and ends.

Both ends of a loan come by here, so this is plain: each is one function, without one of ours
within, and a loan is a tuple until somebody asks for it, which few do.  Times are ns as the clock
gives them, to be divided by who reads them.
An error of ours must never reach who takes a connection.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from bisect import bisect_left
from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

from perf_middleware.clock import monotonic_us
from perf_middleware.database.holding.admission import MEAN_OF_BITS
from perf_middleware.database.holding.figures import BOUNDS_NS, FIRST_NS, NO_ROUTE, NS_PER_US
from perf_middleware.database.holding.loans import Loan
from perf_middleware.database.holding.runtime.nested import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.database.holding.admission import Lengths
    from perf_middleware.database.holding.figures import PoolCounts
    from perf_middleware.database.holding.runtime.idle import Idle
    from perf_middleware.database.holding.runtime.lines import AppLines, Spot

LOANS_MAX: Final = 10_000  # that are remembered at once: a NullPool has no bound of its own
NO_SPOTS: Final[tuple[Spot, ...]] = ()
PINGING: Final[ContextVar[bool]] = ContextVar("perf_middleware.pinging", default=False)
"""Set while a connection is taken only to see whether the database answers: no measure of loans."""

# Since when (ns), the route, the spots, who has left it behind, the task; never one of ours.
Lent: TypeAlias = "tuple[int, str | None, Sequence[Spot], str | None, object]"


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
        # By the pool's entry, which is lent for as long as the loan lasts.
        self._loans: dict[Any, Lent | Loan] = {}
        self._loans_max = 0
        self._counts = counts
        self._lengths = lengths
        self._spots_now = _no_spots if lines is None else lines.now
        self._route_of = route_of
        self._left_by = left_by
        self._failed = failed
        # Without the call of our own clock, which takes as long as to read it.
        self._clock_ns = perf_counter_ns if clock is monotonic_us else lambda: clock() * NS_PER_US

    def __len__(self) -> int:
        return len(self._loans)

    def taking(self, take: Callable[[], Any], idle: Idle | None) -> Callable[[], Any]:
        """`take`, an idle connection first, and the loan that begins with it, of whoever runs."""
        loans, counts, clock_ns = self._loans, self._counts, self._clock_ns
        spots_now, route_of, left_by = self._spots_now, self._route_of, self._left_by
        is_pinging = PINGING.get
        first = take if idle is None else idle.take
        is_empty: Any = () if idle is None else idle.is_empty

        def get() -> Any:
            try:
                record = first()
            except is_empty:
                record = None
            if record is None:  # not within `except`: the pool's errors are not of an empty queue
                record = take()
            # A queue's `_do_get` may call itself, and a StaticPool lends its one to many.
            if record in loans or (lent := len(loans)) >= self._loans_max:
                return record
            route = left_behind_by = holder = None
            spots: Sequence[Spot] = NO_SPOTS
            try:
                loop = _get_running_loop()
                if loop is not None:  # None in a thread without one
                    task = task_of(loop)
                    if task is not None:
                        holder = ref(task)
                spots = spots_now()
                route = route_of()
                if route is None:
                    left_behind_by = left_by()
            except Exception as error:  # noqa: BLE001 - an observer's
                self._failed(error)
            loans[record] = loan = (clock_ns(), route, spots, left_behind_by, holder)
            if is_pinging():
                loans[record] = _loan_of(loan, is_ours=True)
            counts.loans += 1
            if lent >= counts.most_lent:
                counts.most_lent = len(loans)
            return record

        return get

    def returning(
        self, give_back: Callable[[Any], object], idle: Idle | None
    ) -> Callable[[Any], None]:
        """`give_back`, as an idle connection first, and the loan that ends with it."""
        loans, clock_ns, ended = self._loans, self._clock_ns, self._ended
        means_ns = self._lengths.means_ns
        counts = self._counts
        put = give_back if idle is None else idle.put
        is_full: Any = () if idle is None else idle.is_full

        def return_conn(record: Any) -> None:
            # Before it is back: another thread may have it at once.
            loan = loans.pop(record, None)
            if loan is not None:
                # As `_ended` does with two calls less, for what is usual.
                if type(loan) is tuple and record.dbapi_connection is not None:
                    route = loan[1]
                    times, mean_ns = counts.held.get(route or NO_ROUTE), means_ns.get(route)
                    held_ns = clock_ns() - loan[0]
                    if times is not None and mean_ns is not None:
                        means_ns[route] = mean_ns + (held_ns - mean_ns >> MEAN_OF_BITS)
                        times.counts[
                            bisect_left(BOUNDS_NS, held_ns) if held_ns > FIRST_NS else 0
                        ] += 1
                        times.sum_ns += held_ns
                    else:
                        ended(loan, record)
                else:
                    ended(loan, record)
            try:
                put(record)
            except is_full:
                give_back(record)

        return return_conn

    def _ended(self, lent: Lent | Loan, record: Any) -> None:
        now_ns = self._clock_ns()
        loan = _loan_of(lent) if isinstance(lent, tuple) else lent
        since_ns = loan.since_us * NS_PER_US
        # One that was lost, maybe before anybody had it, says nothing of how long others take.
        if not loan.is_ours and record.dbapi_connection is not None:
            self._lengths.note(loan.route, loan.work_us(now_ns // NS_PER_US))
        self._counts.note_held(loan.route, now_ns - since_ns)

    def loan_of(self, record: object) -> Loan | None:
        """The loan of this connection, if it is lent."""
        return self._known(record)

    def all(self) -> list[Loan]:
        """Those that last."""
        loans = [self._known(record) for record in list(self._loans)]
        return [loan for loan in loans if loan is not None]

    def begin(self) -> None:
        """Loans are remembered from now on."""
        self._loans_max = LOANS_MAX

    def end(self) -> None:
        """They are so no more, and nothing is known of any."""
        self._loans_max = 0
        self._loans.clear()

    def _known(self, record: object) -> Loan | None:
        lent = self._loans.get(record)
        if not isinstance(lent, tuple):
            return lent
        loan = _loan_of(lent)
        # Another thread may have given it back. It gets no turn between this look and this step.
        loans = self._loans
        if record in loans and loans[record] is lent:
            loans[record] = loan
        return loan


def _loan_of(lent: Lent, *, is_ours: bool = False) -> Loan:
    since_ns, route, spots, left_by, holder = lent
    return Loan(
        since_ns // NS_PER_US, route, spots=spots, is_ours=is_ours, left_by=left_by, holder=holder
    )


def _no_spots() -> Sequence[Spot]:
    return NO_SPOTS

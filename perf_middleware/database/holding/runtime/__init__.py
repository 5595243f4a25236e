"""Watches the pool of an engine: who has a connection, who waits for one, who must not wait.

    engine.pool   _do_get, _do_return_conn, recreate   loans, and the pool that comes after this one
    engine.pool._pool   get   the queue of idle connections                 waits

A connection that is idle is taken out of the queue at once, as `_do_get` would do first.
These methods of the one pool are wrapped: as events `checkout` and `checkin` a loan would cost 2 us
more.  Creating a connection is no wait: only the queue's `get(block=True)` is.  A pool that is
disposed of makes its successor by `recreate`; what was lent by the old one comes back to that.
Not by an event of the engine: as soon as it has one, SQLAlchemy prepares all of them for each
statement, 9 us.  A pool without a queue (NullPool, StaticPool) lets nobody wait.
Source: SQLAlchemy `Pool._do_get`, `Engine.dispose`, `Engine._has_events`, pool/impl.py.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from perf_middleware.clock import monotonic_us
from perf_middleware.database.holding.admission import Lengths, Running
from perf_middleware.database.holding.figures import NS_PER_US, PoolCounts, PoolNow
from perf_middleware.database.holding.loans import Line, overdue, told
from perf_middleware.database.holding.runtime.around import put_around, take_off
from perf_middleware.database.holding.runtime.idle import idle_of
from perf_middleware.database.holding.runtime.lending import Lending
from perf_middleware.database.holding.runtime.lines import AppLines
from perf_middleware.database.holding.runtime.nested import NestedLoans
from perf_middleware.database.holding.runtime.refusals import NoConnectionError
from perf_middleware.database.holding.runtime.waiting import Place, WaitingLine
from perf_middleware.database.holding.sizing import Advice, PoolSeen, advise

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from perf_middleware.clock import Clock

logger = logging.getLogger("perf_middleware.database")

US_PER_S: Final = 1_000_000
FOREVER_US: Final = 10**15


class PoolWatch:
    """The loans and waits of one engine's pool, from `attach` to `detach`.

    `refuses`: who waits in vain, or would be late, gets NoConnectionError; else the pool's own
    answer after the pool's own time.  `route_of` and `remaining_us` are asked in the context of
    who takes a connection, and `left_by` where there is no route: whose task it is that goes on.
    Engines that threads use are counted too.
    """

    def __init__(
        self,
        name: str,
        *,
        refuses: bool = False,
        held_s_told: float | None = 10.0,
        route_of: Callable[[], str | None] | None = None,
        left_by: Callable[[], str | None] | None = None,
        remaining_us: Callable[[], int | None] | None = None,
        lines: AppLines | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        self.name = name
        self._refuses = refuses
        self._held_us_told = None if held_s_told is None else round(held_s_told * US_PER_S)
        self._route_of = route_of or _no_route
        self._remaining_us = remaining_us
        self._lines = lines or AppLines()
        self._clock = clock
        self._engine: Engine | None = None
        self._waiters: set[object] = set()
        self._lengths = Lengths()
        self._line = WaitingLine(
            running=self._running,
            connections=self._connections,
            lengths=self._lengths,
            clock=clock,
        )
        self._failure_told = False
        self._nested = NestedLoans(name, self._lines)
        self.counts = PoolCounts(clock())
        self._lending = Lending(
            counts=self.counts,
            lengths=self._lengths,
            lines=None if self._held_us_told is None else self._lines,
            route_of=self._route_of,
            left_by=left_by or _no_route,
            failed=self._note_failure,
            clock=clock,
        )

    def attach(self, engine: AsyncEngine | Engine) -> None:
        """Watch `engine` from now on; connections that are lent already are not known."""
        from sqlalchemy import event

        if self._engine is not None:
            raise RuntimeError(f"{self.name} is watched already")
        given: Any = engine
        watched = cast("Engine", getattr(given, "sync_engine", given))
        self._engine = watched
        self._lending.begin()
        event.listen(watched, "connect", self._made)
        self._stand_around(watched.pool)

    def detach(self) -> None:
        """Leave the engine as it was."""
        from sqlalchemy import event

        engine, self._engine = self._engine, None
        if engine is None:
            return
        event.remove(engine, "connect", self._made)
        pool: Any = engine.pool
        take_off(pool, self)
        take_off(getattr(pool, "_pool", None), self)
        self._lending.end()

    def is_of(self, engine: AsyncEngine | Engine) -> bool:
        """Whether it is this engine that is watched now, maybe with other execution options."""
        given: Any = engine
        dialect = getattr(given, "sync_engine", given).dialect
        return self._engine is not None and self._engine.dialect is dialect

    def now(self) -> PoolNow:
        """The pool at this moment."""
        pool: Any = None if self._engine is None else self._engine.pool
        has_queue = hasattr(pool, "checkedin")
        return PoolNow(
            size=pool.size() if has_queue else None,
            idle=pool.checkedin() if has_queue else None,
            # SQLAlchemy counts from minus the size on, while the pool fills.
            overflow=max(0, pool.overflow()) if has_queue else None,
            lent=len(self._lending),
            waiting=len(self._waiters),
        )

    def look(self) -> None:
        """Tell the loans that are too long; every second or so."""
        if self._held_us_told is None:
            return
        now_us = self._clock()
        for loan in overdue(self._lending.all(), now_us=now_us, held_us_told=self._held_us_told):
            self.counts.told += 1
            loan.lines = self._lines.lines_of(loan.spots)
            logger.warning("%s", told(loan, pool=self.name, now_us=now_us))

    def advice(self) -> Advice:
        """How large the pool should be, from what was seen since the counts began."""
        pool: Any = None if self._engine is None else self._engine.pool
        if not hasattr(pool, "checkedin"):
            return Advice(None, ("This pool has no size.",))
        counts, now_us = self.counts, self._clock()
        held = counts.held_us()
        for loan in self._lending.all():
            route = loan.route or "none"
            held[route] = held.get(route, 0) + now_us - max(loan.since_us, counts.since_us)
        return advise(
            PoolSeen(
                size=pool.size(),
                overflow_max=max(0, pool._max_overflow),  # noqa: SLF001 - no name of its own
                window_us=now_us - counts.since_us,
                loans=counts.loans,
                held_us=sum(held.values()),
                most_lent=counts.most_lent,
                waits=counts.waits,
                waited_us=counts.waited.sum_us,
                most_waiting=counts.most_waiting,
                held_by_route=held,
            )
        )

    def answered(self, record: object) -> None:
        """The request that holds this connection begins its response: its work is done."""
        loan = self._lending.loan_of(record)
        if loan is not None and loan.answered_us is None:
            loan.answered_us = self._clock()

    def lines_of(self, record: object) -> tuple[Line, ...]:
        """The lines of the app that took this connection, innermost first."""
        loan = self._lending.loan_of(record)
        return () if loan is None else self._lines.lines_of(loan.spots)

    def reset_counts(self) -> None:
        """Every count back to zero; loans that last go on."""
        self.counts.reset(self._clock())
        self.counts.most_lent = len(self._lending)

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        now, now_us = self.now(), self._clock()
        advice = self.advice()
        loans = sorted(self._lending.all(), key=lambda loan: loan.since_us)[:5]
        return {
            "size": now.size,
            "idle": now.idle,
            "lent": now.lent,
            "overflow": now.overflow,
            "waiting": now.waiting,
            "held": [
                {
                    "route": loan.route,
                    "left_by": loan.left_by,
                    "held_s": round((now_us - loan.since_us) / US_PER_S, 3),
                    "lines": [str(line) for line in self._lines.lines_of(loan.spots)],
                }
                for loan in loans
            ],
            "connections_advised": advice.connections,
            "advice": list(advice.sentences),
        }

    # --- around a loan ---------------------------------------------------------------------------

    def _made(self, _connection: object, _record: object) -> None:
        self.counts.made += 1

    def _stand_around(self, pool: Any) -> None:
        lending, idle = self._lending, idle_of(pool)
        make_anew = pool.recreate

        def recreate() -> Any:
            anew = make_anew()
            if self._engine is not None:
                self._stand_around(anew)
            return anew

        put_around(
            pool,
            {
                "_do_get": lending.taking(pool._do_get, idle),  # noqa: SLF001
                "_do_return_conn": lending.returning(pool._do_return_conn, idle),  # noqa: SLF001
                "recreate": recreate,
            },
            self,
        )
        self._wrap_queue(pool)

    # --- the wait --------------------------------------------------------------------------------

    def _wrap_queue(self, pool: Any) -> None:
        queue = getattr(pool, "_pool", None)
        if queue is None or not hasattr(queue, "get"):
            return
        take = queue.get

        def get(block: bool = True, timeout: float | None = None) -> Any:
            # Only blocking is waiting, and what is there is taken first, as the queue itself does.
            try:
                return take(False)
            except Empty:
                if not block:
                    raise
            return self._wait(queue, take, timeout)

        from sqlalchemy.util.queue import Empty

        put_around(queue, {"get": get}, self)

    def _wait(self, queue: Any, take: Callable[..., Any], timeout: float | None) -> Any:
        from sqlalchemy.util import await_only
        from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty

        wait_us = FOREVER_US if timeout is None else round(timeout * US_PER_S)
        place, reason = None, "wait"
        if self._refuses:
            place, wait_us, reason = self._enter(wait_us)
        counts, token = self.counts, object()
        begun_us = self._clock()
        self._waiters.add(token)
        counts.waits += 1
        counts.most_waiting = max(counts.most_waiting, len(self._waiters))
        try:
            if place is None or not isinstance(queue, AsyncAdaptedQueue):
                return take(True, None if wait_us == FOREVER_US else wait_us / US_PER_S)
            return await_only(self._line.take(queue._queue, place, wait_us=wait_us))  # noqa: SLF001
        except (Empty, TimeoutError):
            counts.refused["deadline" if place is not None and place.is_late else reason] += 1
            waited_s = (self._clock() - begun_us) / US_PER_S
            self._nested.tell(
                self._lending.all(), route=self._route(),
                connections=self._connections(), waited_s=waited_s,
            )  # fmt: skip
            if place is None:
                raise
            raise NoConnectionError(self.name, waited_s, self._line.retry_after_s()) from None
        finally:
            self._waiters.discard(token)
            counts.waited.add((self._clock() - begun_us) * NS_PER_US)

    def _enter(self, wait_us: int) -> tuple[Place, int, str]:
        """A place in line, how long it may wait, and what ends that; or NoConnectionError."""
        remaining_us = self._time_left_us()
        kind = self._route()
        if remaining_us is None:
            return Place(kind, None), wait_us, "wait"
        place = Place(kind, self._clock() + remaining_us)
        if self._line.is_late(place):
            self.counts.refused["deadline"] += 1
            raise NoConnectionError(self.name, 0.0, self._line.retry_after_s())
        if remaining_us < wait_us:
            return place, remaining_us, "deadline"
        return place, wait_us, "wait"

    def _running(self) -> list[Running]:
        now_us = self._clock()
        return [
            Running(
                loan.route,
                now_us - loan.since_us,
                None if loan.is_ours else loan.work_us(now_us),
            )
            for loan in self._lending.all()
        ]

    def _connections(self) -> int:
        pool: Any = None if self._engine is None else self._engine.pool
        if not hasattr(pool, "checkedin"):
            return len(self._lending)
        return int(pool.size() + max(0, pool._max_overflow))  # noqa: SLF001 - no name of its own

    def _route(self) -> str | None:
        try:
            return self._route_of()
        except Exception as error:  # noqa: BLE001 - an observer's
            self._note_failure(error)
            return None

    def _time_left_us(self) -> int | None:
        if self._remaining_us is None:
            return None
        try:
            return self._remaining_us()
        except Exception as error:  # noqa: BLE001 - an observer's
            self._note_failure(error)
            return None

    def _note_failure(self, error: Exception) -> None:
        self.counts.observer_failures += 1
        if not self._failure_told:
            self._failure_told = True
            logger.warning(
                "the watch of %s goes on without a step that failed: %r", self.name, error
            )


def _no_route() -> None:
    return None

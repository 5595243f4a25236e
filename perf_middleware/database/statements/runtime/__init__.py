"""Watches the statements of an engine: times them, and tells what is slow or repeats.

    SQLAlchemy  ->  ours  ->  the dialect's do_execute        the clock before and after
                     |
                     +-- one look-up by the text, one addition             every statement
                     +-- the request's account, the app's own line         in a request

An engine has a dialect of its own, whose `do_execute` and its siblings call the driver: ours stand
around them.  The engine's events, `before_cursor_execute` and `after_cursor_execute`, would do as
well but for their price: SQLAlchemy prepares all events of an execution as soon as there is one,
8 us for hooks that do nothing.  The dialect's events cost 1 us, and take part in who executes.

It all runs in the task of the request that asked, also for async engines, and in the thread of a
sync endpoint: the request is found by its context variable.
"""

from __future__ import annotations

from bisect import bisect_left
from logging import getLogger
from threading import Lock
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from perf_middleware.database.statements.decorators import ALLOWED
from perf_middleware.database.statements.figures import BUCKETS_NS, FIRST_NS, StatementFigures
from perf_middleware.database.statements.fingerprint import Fingerprint
from perf_middleware.database.statements.listing import sorted_rows, table
from perf_middleware.database.statements.n_plus_one import RequestTally
from perf_middleware.database.statements.runtime.loads import load_of
from perf_middleware.database.statements.runtime.places import Places
from perf_middleware.database.statements.runtime.telling import Teller
from perf_middleware.database.statements.slow import SlowStatement
from perf_middleware.families import NO_LABELS, Family, Value, counter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perf_middleware.database.statements.figures import StatementRow
    from perf_middleware.database.statements.listing import Order
    from perf_middleware.database.statements.n_plus_one import Repeat
    from perf_middleware.events import Events

logger = getLogger("perf_middleware.database")

NONE_YET: Final = Fingerprint("", "", "")  # of a request that is looked through
NO_REPEATS: Final[list[Repeat]] = []
NO_PARAMS: Final = "do_execute_no_params"
TIMED: Final = ("do_execute", "do_executemany", NO_PARAMS)
BACKSLASHES: Final = frozenset(("mysql", "mariadb"))  # dialects whose strings have them


class RequestAccount:
    """What one request's statements have cost; made at the first of them.

    The first that may repeat is kept by itself: a tally is made where a second one comes.  `first`
    is None where the request is not looked through.  No `__init__`: it would cost 0.4 us.
    """

    __slots__ = ("elapsed_ns", "ended", "first", "first_ns", "statements", "tally")

    statements: int
    elapsed_ns: int
    ended: bool
    first: Fingerprint | None
    first_ns: int
    tally: RequestTally | None


class RequestRecord(Protocol):
    """The request that the running code serves, as another layer keeps it."""

    statements: RequestAccount | None
    """None until we set it."""


class StatementWatch:
    """The statements of the engines that are attached; `families`, `status`, `reset_counts`.

    `current_request` gives the record of the request that the running code serves, `route_of` its
    route while it runs; without them only the fingerprints are counted.  Whoever keeps the records
    calls `request_ended` for each whose `statements` is set.  `repeats_min` None: no repeats.
    """

    def __init__(
        self,
        *,
        current_request: Callable[[], RequestRecord | None] | None = None,
        route_of: Callable[[Any], str] | None = None,
        events: Events | None = None,
        own: Sequence[str] = (),
        slow_s: float | None = 0.5,
        log_per_minute_max: int = 30,
        repeats_min: int | None = 5,
        sample_every: int = 1,
        allowed_repeats: frozenset[str] = frozenset(),
        fingerprints_max: int = 300,
        texts_max: int = 2_000,
        texts_chars_max: int = 4_000_000,
        new_texts_per_s_max: int = 200,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._current_request = current_request or _no_request
        self._route_of = route_of
        # Without a threshold nothing reaches it: one comparison instead of a test for None.
        self._slow_ns = 1 << 62 if slow_s is None else round(slow_s * 1e9)
        self._looks = repeats_min is not None
        self._repeats_min = repeats_min or 0
        self._sample_every = sample_every
        self._seen_requests = 0
        self._allowed_repeats = allowed_repeats
        self._places = Places(own)
        self._clock_ns = clock_ns
        self._lock = Lock()  # sync endpoints run in threads
        self._figures = StatementFigures(
            fingerprints_max=fingerprints_max,
            texts_max=texts_max,
            texts_chars_max=texts_chars_max,
            new_texts_per_s_max=new_texts_per_s_max,
        )
        self._by_route = self._figures.by_route
        self._teller = Teller(per_minute_max=log_per_minute_max, events=events)
        self._failures = 0
        self._failure_told = False

    def attach(self, engine: Any) -> None:
        """Watch an engine of SQLAlchemy, async or not, from its next statement on.

        One that is watched already stays so.
        """
        dialect = getattr(engine, "sync_engine", engine).dialect
        self._places.follow_greenlets()
        for name in TIMED:
            if not self._is_around(dialect, name):
                escapes = dialect.name in BACKSLASHES
                setattr(dialect, name, self._around(dialect, name, escapes))

    def detach(self, engine: Any) -> None:
        """Watch it no more; an engine that is not watched is left alone.

        So is one whose dialect something else has wrapped since: that would be taken off as well.
        """
        dialect = getattr(engine, "sync_engine", engine).dialect
        for name in TIMED:
            if self._is_around(dialect, name):
                inner = dialect.__dict__[name].__wrapped__
                delattr(dialect, name)
                if getattr(dialect, name) != inner:  # not the class's own: it was wrapped before
                    setattr(dialect, name, inner)

    def _is_around(self, dialect: Any, name: str) -> bool:
        return getattr(dialect.__dict__.get(name), "watch", None) is self

    # --- around a statement ---------------------------------------------------------------------

    def _around(self, dialect: Any, name: str, backslash_escapes: bool) -> Callable[..., Any]:
        """One of the dialect's functions, timed.  SQLAlchemy gives the execution context last."""
        inner = execute = getattr(dialect, name)
        if name == NO_PARAMS:

            def execute(cursor: Any, statement: str, _: Any, context: Any) -> Any:
                return inner(cursor, statement, context)

        clock_ns, by_text, slow_ns = self._clock_ns, self._figures.by_text, self._slow_ns
        current_request, count_in_request = self._current_request, self._count_in_request

        def run(cursor: Any, statement: str, parameters: Any, context: Any = None) -> Any:
            began_ns = clock_ns()
            try:
                result = execute(cursor, statement, parameters, context)
            except BaseException as exc:
                elapsed_ns = clock_ns() - began_ns
                self._count_failed(elapsed_ns, statement, context, backslash_escapes, exc)
                raise
            elapsed_ns = clock_ns() - began_ns
            # Without the lock: threads take turns at calls and jumps, and no sum has one between
            # its reading and its writing.
            try:
                row = by_text.get(statement)
                if row is None:
                    row = self._row_of(statement, backslash_escapes)
                rows = cursor.rowcount
                # As `row.count`, whose call would take as long as this.
                place = bisect_left(BUCKETS_NS, elapsed_ns) if elapsed_ns > FIRST_NS else 0
                row.buckets[place] += 1
                row.sum_ns += elapsed_ns
                if elapsed_ns > row.longest_ns:
                    row.longest_ns = elapsed_ns
                if rows > 0:
                    row.rows += rows
                record = current_request()
                if elapsed_ns >= slow_ns:
                    self._tell_slow(row, elapsed_ns, rows, record, None)
                if record is not None:
                    count_in_request(record, row, elapsed_ns, context)
            except Exception as exc:  # noqa: BLE001 - the statement has run: who asked gets its result
                self._observer_failed(exc)
            return result

        def run_no_params(cursor: Any, statement: str, context: Any = None) -> Any:
            return run(cursor, statement, None, context)

        timed: Callable[..., Any] = run_no_params if name == NO_PARAMS else run
        timed.__wrapped__ = inner  # type: ignore[attr-defined]
        timed.watch = self  # type: ignore[attr-defined]
        return timed

    def _count_failed(
        self,
        elapsed_ns: int,
        statement: str,
        context: Any,
        backslash_escapes: bool,
        failure: BaseException,
    ) -> None:
        try:
            row = self._row_of(statement, backslash_escapes)
            row.count(elapsed_ns, -1)
            row.count_failure(was_cancelled=not isinstance(failure, Exception))
            record = self._current_request()
            if elapsed_ns >= self._slow_ns:
                self._tell_slow(row, elapsed_ns, -1, record, failure)
            if record is not None:
                self._count_in_request(record, row, elapsed_ns, context)
        except Exception as exc:  # noqa: BLE001 - who asked gets the statement's own error
            self._observer_failed(exc)

    def _count_in_request(
        self, record: RequestRecord, row: StatementRow, elapsed_ns: int, context: Any
    ) -> None:
        account = record.statements
        if account is None:
            account = RequestAccount()
            account.statements = 1
            account.elapsed_ns = account.first_ns = elapsed_ns
            account.ended = False
            account.first = account.tally = None
            if self._looks:
                seen = self._seen_requests
                self._seen_requests = seen + 1
                if seen % self._sample_every == 0:
                    may_repeat = row.may_repeat and not ALLOWED.get()
                    account.first = row.fingerprint if may_repeat else NONE_YET
            # Threads take turns neither between a look and a step like this one.
            earlier = record.statements
            if earlier is None:
                record.statements = account
                return
            account = earlier
        account.statements += 1
        account.elapsed_ns += elapsed_ns
        first = account.first
        if first is None or not row.may_repeat or ALLOWED.get():
            return
        # Two threads of one request may lose a count here, no more.
        if first is NONE_YET:
            account.first, account.first_ns = row.fingerprint, elapsed_ns
            return
        tally = account.tally
        if tally is None:
            tally = account.tally = RequestTally(self._repeats_min)
            tally.add(first, account.first_ns)
        repeat = tally.add(row.fingerprint, elapsed_ns)
        if repeat is not None:
            self._look(tally, repeat, elapsed_ns, context)

    def _row_of(self, statement: str, backslash_escapes: bool) -> StatementRow:
        with self._lock:
            return self._figures.by_text.get(statement) or self._figures.row_of_new(
                statement, now_us=self._clock_ns() // 1000, backslash_escapes=backslash_escapes
            )

    def _look(
        self,
        tally: RequestTally,
        repeat: Repeat,
        elapsed_ns: int,
        context: Any,
    ) -> None:
        """Find where a statement comes from that has run before."""
        spot = self._places.spot_now()
        if spot is None:
            return
        code, instruction = spot
        # Not the code itself: its hash is made of all that is in it, each time.
        is_finding = tally.at(repeat, (id(code), instruction), elapsed_ns)
        if is_finding and repeat.fingerprint.id not in self._allowed_repeats:
            repeat.place = self._places.place_of(spot)
            repeat.load = load_of(context)

    def _tell_slow(
        self,
        row: StatementRow,
        elapsed_ns: int,
        rows: int,
        record: RequestRecord | None,
        failure: BaseException | None,
    ) -> None:
        with self._lock:
            row.slow += 1
        spot = self._places.spot_now()
        outcome = ""
        if failure is not None:
            outcome = "failed" if isinstance(failure, Exception) else "cancelled"
        self._teller.tell_slow(
            SlowStatement(
                fingerprint=row.fingerprint,
                elapsed_ns=elapsed_ns,
                rows=rows,
                route="" if record is None or self._route_of is None else self._route_of(record),
                place=None if spot is None else self._places.place_of(spot),
                outcome=outcome,
            ),
            now_us=self._clock_ns() // 1000,
        )

    def _observer_failed(self, exc: Exception) -> None:
        self._failures += 1
        if not self._failure_told:
            self._failure_told = True
            logger.error("a statement could not be counted; the work goes on", exc_info=exc)

    # --- the requests and the figures -----------------------------------------------------------

    def request_ended(self, record: RequestRecord, route: str) -> None:
        """Count a request under its route, and tell what it repeated; never raises.

        What is told names what `route_of` says.  A second call for a request does nothing, nor does
        one for a request without statements.
        """
        account = record.statements
        if account is None or account.ended:
            return
        account.ended = True
        tally = account.tally
        account.first = None  # what a background task does is not told
        try:
            row = self._by_route.get(route)
            if tally is None and row is not None:
                # As `count_request`, for what is usual.
                row.requests += 1
                row.statements += account.statements
                row.sum_ns += account.elapsed_ns
                return
            account.tally = None
            repeats = tally.findings() if tally is not None and tally.has_found else NO_REPEATS
            self._figures.count_request(route, account.statements, account.elapsed_ns, len(repeats))
            if repeats:
                name = (self._route_of(record) if self._route_of is not None else "") or route
                self._teller.tell_repeats(repeats, name, now_us=self._clock_ns() // 1000)
        except Exception as exc:  # noqa: BLE001 - the request has been answered
            self._observer_failed(exc)

    def reset_counts(self) -> None:
        """All counts back to zero; findings that were told stay so."""
        with self._lock:
            self._figures.reset_counts()
            self._failures = 0
        self._teller.reset_counts()

    def status(self, top: int = 20, by: Order = "seconds") -> dict[str, Any]:
        """The `top` statements that have most of `by`; the newest slow ones and findings.

        `slow` and `findings` are the newest 20 of each, the newest last.
        """
        with self._lock:
            figures = self._figures.status(top, by)
        return {
            **figures,
            "slow": self._teller.slow_status(),
            "findings": self._teller.status(),
            "lines_suppressed": self._teller.suppressed,
            "failures": self._failures,
        }

    def table(self, top: int = 20, by: Order = "seconds") -> str:
        """The same statements as lines of text: `print(perf.database.statements.table())`."""
        with self._lock:
            return table(sorted_rows(self._figures.rows(), by, top))

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        with self._lock:
            families = list(self._figures.families())
        yield from families
        yield counter(
            "perf_database_statement_lines_suppressed",
            "Lines of slow and repeated statements beyond `log_per_minute_max`.",
            [Value(NO_LABELS, self._teller.suppressed)],
        )
        yield counter(
            "perf_database_statement_failures",
            "Statements that our hooks failed to count.",
            [Value(NO_LABELS, self._failures)],
        )


def _no_request() -> None:
    return None

"""`perf.limits.backpressure`: how many requests the app works on, who waits, and who is shed."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import find_header
from perf_middleware.clock import monotonic_us
from perf_middleware.events import SheddingChanged
from perf_middleware.limits.concurrency.criticality import (
    ATTRIBUTE,
    CODES,
    CRITICAL,
    FIELD_CODES,
    SHEDDABLE_PLUS,
    is_refused,
)
from perf_middleware.limits.concurrency.figures import BackpressureFigures
from perf_middleware.limits.concurrency.fold import LimitFold
from perf_middleware.limits.concurrency.line import SHED, Line, Ticket
from perf_middleware.limits.concurrency.runtime.gate import Gate
from perf_middleware.limits.rules import RouteRules

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perf_middleware.asgi import Scope
    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.limits.concurrency.criticality import Treatment
    from perf_middleware.limits.concurrency.estimate import Estimator
    from perf_middleware.limits.concurrency.line import Reason
    from perf_middleware.path_patterns import PathPattern
    from perf_middleware.refusals import Refusals

logger = logging.getLogger("perf_middleware.limits")

CALM_US: Final = 5_000_000  # nobody was shed for so long: it is over
FULL_US: Final = 1_000_000  # after one was shed: permits come free for moments between the others
FAILURES_TOLD_EVERY: Final = 1_000


class Backpressure:
    """The permits of one app: what `BackpressureMiddleware` asks.

    Hooks, None until somebody sets them:
    `level()` is the overload: 0 normal, 1 busy, 2 overloaded.
    `trusts(scope)` says whose header may name a criticality.
    `remaining_us(scope)` is what is left of a request's deadline, None without one.
    `criticality_of(scope)` is the user's own: the name of a class, or None.
    `on_change(event)` is told when shedding starts and ends.
    """

    def __init__(
        self,
        *,
        estimator: Estimator[Any],
        refusals: Refusals,
        waiting_max: int,
        target_us: int,
        interval_us: int,
        turn_budget_us: int | None = None,
        rules: Sequence[tuple[PathPattern, frozenset[str] | None, Treatment]] = (),
        partitions: Mapping[str, int] | None = None,
        header: bytes | None = None,
        exempt_paths: Iterable[str] = (),
        websockets_max: int | None = None,
        dry_run: bool = False,
        clock: Clock = monotonic_us,
    ) -> None:
        self.figures = BackpressureFigures()
        self.fold = LimitFold(estimator)
        self.rules: RouteRules[Treatment] = RouteRules(rules, attribute=ATTRIBUTE)
        self.refusals = refusals
        self.exempt_paths = frozenset(exempt_paths)
        self.websockets_max = websockets_max
        self.websockets = 0
        self.dry_run = dry_run
        self.clock = clock
        self.level: Callable[[], int] | None = None
        self.trusts: Callable[[Scope], bool] | None = None
        self.remaining_us: Callable[[Scope], int | None] | None = None
        self.criticality_of: Callable[[Scope], str | None] | None = None
        self.on_change: Callable[[SheddingChanged], object] | None = None
        self._header = header
        self._line = {"target_us": target_us, "interval_us": interval_us}
        self._waiting_max = waiting_max
        self._partitions = dict(partitions or {})
        self._turn_budget_us = turn_budget_us
        # Of the loops that are not closed: a gate holds its own, so that no weak key would let go.
        self._gates: dict[asyncio.AbstractEventLoop | None, Gate] = {}
        self.gate = self._new_gate(None)
        self.here: tuple[Gate, int, Callable[[], bool]] = self.gate, 0, _never
        """The gate with its thread, and whether its loop runs: no two loops run in one thread, so
        that these tell if it is the running one.  To ask for that takes a system call (3.11).
        """
        self._is_shedding = False
        self._shed_us = 0
        self._shed_since_us = 0
        self._shed_count = 0

    # --- the gate of this event loop ------------------------------------------------------------

    def gate_here(self) -> Gate:
        """The permits on the running loop."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            loop = None  # trio
        if loop is None and self.gate.loop is None:
            return self.gate
        return self.gate_on(loop)

    def gate_on(self, loop: asyncio.AbstractEventLoop | None) -> Gate:
        """The permits on `loop`, the running one: an app may be run in one loop after another."""
        gate = self._gates.get(loop)
        if gate is None:
            for other in list(self._gates):  # another thread's loop may come in between
                if other is not None and other.is_closed():
                    self._gates.pop(other, None)
            gate = self._gates[loop] = self._new_gate(loop)
        self.gate = gate
        if loop is not None:
            self.here = gate, get_ident(), loop.is_running
        return gate

    def _new_gate(self, loop: asyncio.AbstractEventLoop | None) -> Gate:
        return Gate(
            loop=loop, fold=self.fold, new_line=self._new_line, partitions=self._partitions,
            turn_budget_us=self._turn_budget_us, on_shed=self._on_shed, figures=self.figures,
            clock=self.clock,
        )  # fmt: skip

    def _new_line(self, waiting_max: int | None) -> Line:
        most = self._waiting_max if waiting_max is None else min(waiting_max, self._waiting_max)
        return Line(waiting_max=most, **self._line)

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return self.fold.limit

    @property
    def in_flight(self) -> int:
        return self.gate.in_flight

    @property
    def waiting(self) -> int:
        return self.gate.waiting

    def queue_age_s(self) -> float:
        """How long the one who waits the longest has done so, seconds; 0.0 where nobody waits."""
        oldest_us = self.gate.oldest_us()
        return 0.0 if oldest_us is None else max(self.clock() - oldest_us, 0) / 1e6

    def is_full(self) -> bool:
        """Whether one more would have to wait, or somebody was shed within FULL_US."""
        if self.dry_run:
            return False
        gate = self.gate
        if gate.is_lined or gate.in_flight >= gate.limit:
            return True
        return self._is_shedding and self.clock() - self._shed_us < FULL_US

    # --- judging --------------------------------------------------------------------------------

    def criticality(self, scope: Scope, treatment: Treatment | None) -> int:
        """The class of a request: the user's word, a trusted caller's, the rule's, critical."""
        if self.criticality_of is not None:
            try:
                name = self.criticality_of(scope)
                if name is not None:
                    return CODES[name]
            except Exception as error:  # noqa: BLE001 - the request goes on without that word
                self._note_failure("criticality_of", error)
        if self.trusts is not None and self._header is not None:
            value = find_header(scope["headers"], self._header)
            code = None if value is None else FIELD_CODES.get(value)
            if code is not None:
                try:
                    if self.trusts(scope):
                        return code
                except Exception as error:  # noqa: BLE001 - one that cannot be judged is not trusted
                    self._note_failure("trusts", error)
        if treatment is not None and treatment.criticality is not None:
            return treatment.criticality
        return CRITICAL

    def is_refused(self, criticality: int, *, would_wait: bool = False) -> bool:
        """Whether the level of overload lets no request of this class in."""
        if criticality < SHEDDABLE_PLUS or self.level is None:
            return False
        try:
            return is_refused(criticality, self.level(), would_wait=would_wait)
        except Exception as error:  # noqa: BLE001 - without a level it is as if all were well
            self._note_failure("level", error)
            return False

    def refusal_of(self, scope: Scope, ticket: Ticket, gate: Gate) -> Reason | None:
        """Why a request that cannot be let in now shall not even wait; None where it may."""
        if self.is_refused(ticket.criticality, would_wait=True):
            return "level"
        left_us = self.left_us(scope)
        if left_us is not None:
            # It would wait about as long as the one before, while there is a line.
            if left_us <= (gate.wait_us if gate.line.count else 0):
                return "deadline"
            ticket.deadline_us = ticket.arrived_us + left_us
        return None

    def left_us(self, scope: Scope) -> int | None:
        """What is left of the request's deadline."""
        if self.remaining_us is None:
            return None
        try:
            return self.remaining_us(scope)
        except Exception as error:  # noqa: BLE001 - it waits as one without a deadline
            self._note_failure("remaining_us", error)
            return None

    def _note_failure(self, hook: str, error: Exception) -> None:
        self.figures.failures += 1
        if self.figures.failures % FAILURES_TOLD_EVERY == 1:
            logger.error("backpressure: %s failed, the request goes on", hook, exc_info=error)

    # --- what happened --------------------------------------------------------------------------

    def _on_shed(self, ticket: Ticket) -> None:
        if ticket.state == SHED:
            self.note_shed(ticket.reason, ticket.criticality, self.clock())

    def note_shed(self, reason: Reason, criticality: int, now_us: int) -> None:
        """One request is not served."""
        self.figures.shed[reason][criticality] += 1
        self._shed_us = now_us
        self._shed_count += 1
        if not self._is_shedding:
            self._is_shedding = True
            self._shed_since_us = now_us
            self._shed_count = 1
            self._watch()
            try:
                self._tell(now_us)
                logger.warning(
                    "backpressure: requests are shed (%s): limit %d, in flight %d, waiting %d",
                    reason, self.limit, self.in_flight, self.waiting,
                )  # fmt: skip
            except Exception:  # noqa: BLE001 - a log's filter, say, which is no request's either
                self.figures.failures += 1

    def note_waited(self, ticket: Ticket, now_us: int) -> None:
        """One request was granted its permit after a wait."""
        wait_us = now_us - ticket.arrived_us
        self.gate.wait_us = wait_us
        self.figures.waited += 1
        self.figures.wait_us += wait_us

    def note_dry(
        self, reason: Reason | None, ticket: Ticket, gate: Gate, partition: str | None
    ) -> None:
        """Let in a request that would have waited or been shed, and count it.

        Those above the limit stand for the line: how long they would have waited is not known.
        """
        if reason is None and gate.in_flight - gate.limit >= gate.line.waiting_max:
            reason = "full"
        if reason is None:
            self.figures.would_wait += 1
        else:
            self.figures.would_shed[reason][ticket.criticality] += 1
        gate.force(ticket, partition)

    def look_for_calm(self) -> None:
        """Note that shedding is over, once nobody was shed for some time."""
        now_us = self.clock()
        if self._is_shedding and now_us - self._shed_us >= CALM_US:
            self._is_shedding = False
            logger.info(
                "backpressure: no request is shed any more: %d were in %.1f s, limit %d",
                self._shed_count, (self._shed_us - self._shed_since_us) / 1e6, self.limit,
            )  # fmt: skip
            self._tell(now_us)

    def _watch(self) -> None:
        """Look for calm while there is some loop to do it; else whoever asks for figures does."""
        loop = self.gate.loop
        if self._is_shedding and loop is not None and not loop.is_closed():
            loop.call_later(CALM_US / 1e6, self._watched)

    def _watched(self) -> None:
        self.look_for_calm()
        self._watch()

    def _tell(self, now_us: int) -> None:
        if self.on_change is not None:
            event = SheddingChanged(
                is_shedding=self._is_shedding, limit=self.limit, in_flight=self.in_flight,
                waiting=self.waiting, shed=self._shed_count,
                lasted_s=max(now_us - self._shed_since_us, 0) / 1e6,
            )  # fmt: skip
            try:
                self.on_change(event)
            except Exception as error:  # noqa: BLE001 - an observer's failure is no request's
                self._note_failure("on_change", error)

    # --- figures --------------------------------------------------------------------------------

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.figures.reset()

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        self.look_for_calm()
        return self.figures.families(
            limit=self.limit, in_flight=self.in_flight, waiting=self.waiting,
            websockets=self.websockets,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        self.look_for_calm()
        return {
            "limit": self.limit,
            **self.gate.status(),
            "queue_age_s": round(self.queue_age_s(), 3),
            "shedding": self._is_shedding,
            "dry_run": self.dry_run,
            **self.figures.totals(),
        }


def _never() -> bool:
    return False

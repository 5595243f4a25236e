"""`current_deadline()`, and `Deadlines`: the timeouts and request limits of one app.

deadline = current_deadline()              in the endpoint, its threads, its dependencies
if deadline is not None:
    deadline.require(0.2)
    await http.get(url, timeout=deadline.remaining_s())
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.asgi import find_header
from perf_middleware.clock import monotonic_us
from perf_middleware.errors import DeadlineExceededError
from perf_middleware.limits.deadlines.choices import (
    BODY_LIMIT_ATTRIBUTE,
    TIMEOUT_ATTRIBUTE,
    BodyChoice,
    TimeoutChoice,
)
from perf_middleware.limits.deadlines.deadline import (
    GRPC_TIMEOUT,
    Deadline,
    parse_timeout_us,
    timeout_value,
    unit_ns_of,
)
from perf_middleware.limits.deadlines.drivers.lines import Lines
from perf_middleware.limits.deadlines.figures import DeadlineFigures
from perf_middleware.limits.rules import RouteRules

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from perf_middleware.asgi import Scope
    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.limits.deadlines.choices import Covers
    from perf_middleware.limits.deadlines.pace import Pace
    from perf_middleware.limits.rules import EndpointAhead
    from perf_middleware.path_patterns import PathPattern


class Held:
    """What one request is held to: `at_us` on the clock of `deadlines`, or None, once it is over.

    Its context keeps it, and not the time: what goes on behind the response has no deadline.
    """

    __slots__ = ("at_us", "deadlines")

    def __init__(self, at_us: int | None, deadlines: Deadlines) -> None:
        self.at_us = at_us
        self.deadlines = deadlines


CURRENT: Final[ContextVar[Held | None]] = ContextVar("perf_middleware.deadline", default=None)


class RequestDeadline:
    """When the request in this context must be answered; read as time that is left."""

    __slots__ = ("_clock", "_deadline", "header_name")

    def __init__(self, at_us: int, *, clock: Clock, header_name: str = GRPC_TIMEOUT) -> None:
        self._deadline = Deadline(at_us)
        self._clock = clock
        self.header_name = header_name

    def remaining_us(self) -> int:
        """Whole microseconds left, 0 once it is reached."""
        return self._deadline.remaining_us(self._clock())

    def remaining_s(self) -> float:
        """Seconds left, 0.0 once it is reached: `timeout=deadline.remaining_s()` of a client."""
        return self.remaining_us() / 1_000_000

    def remaining_ms(self) -> int:
        """Whole milliseconds left, at least 1: in a statement_timeout 0 would mean no limit."""
        return max(self.remaining_us() // 1_000, 1)

    def header_value(self) -> str:
        """What `header_name` says of it to the next server, at least its smallest time."""
        return timeout_value(self.remaining_us(), self.header_name)

    @property
    def expired(self) -> bool:
        return self.remaining_us() == 0

    def require(self, seconds: float) -> None:
        """Go on only where `seconds` are left.

        Raises DeadlineExceededError, which is answered with 504 where the app lets it pass.
        """
        remaining_us = self.remaining_us()
        if remaining_us == 0 or remaining_us < seconds * 1_000_000:
            raise DeadlineExceededError(remaining_us / 1_000_000, seconds)

    def within(self, seconds: float) -> RequestDeadline:
        """The sooner of this one and `seconds` from now: for one step of several."""
        sooner = self._deadline.sooner(Deadline(self._clock() + round(seconds * 1_000_000)))
        return RequestDeadline(sooner.at_us, clock=self._clock, header_name=self.header_name)

    @contextmanager
    def scope(self) -> Iterator[anyio.CancelScope]:
        """What runs inside is cancelled at the deadline (`anyio`: at each of its waits).

        Raises DeadlineExceededError then.
        """
        at_s = anyio.current_time() + self.remaining_s()
        with anyio.CancelScope(deadline=at_s) as cancel_scope:
            yield cancel_scope
        if cancel_scope.cancelled_caught:
            raise DeadlineExceededError

    def __repr__(self) -> str:
        return f"RequestDeadline({self.remaining_s():.6f} s left)"


def current_deadline() -> RequestDeadline | None:
    """The deadline of the request in this context; None where none holds, or holds any more."""
    held = CURRENT.get()
    if held is None or held.at_us is None:
        return None
    deadlines = held.deadlines
    return RequestDeadline(held.at_us, clock=deadlines.clock, header_name=deadlines.header_name)


def remaining_us(scope: Scope) -> int | None:
    """Microseconds that the request of `scope`, which is the one in this context, has left."""
    held = CURRENT.get()
    if held is None or held.at_us is None:
        return None
    return max(held.at_us - held.deadlines.clock(), 0)


class Deadlines:
    """The timeouts and request limits of one app; its two middlewares ask it what holds.

    `trusts` says whether the caller of a scope may tell a deadline in `header_name`; without it
    nobody may.  `follows_header` says whether that is asked at all.
    """

    def __init__(
        self,
        *,
        default_timeout: TimeoutChoice = TimeoutChoice(None),  # noqa: B008 - frozen
        timeout_rules: Sequence[tuple[PathPattern, frozenset[str] | None, TimeoutChoice]] = (),
        covers: Covers = "head",
        follows_header: bool = False,
        header_name: str = GRPC_TIMEOUT,
        header_max_us: int = 60_000_000,
        dry_run: bool = False,
        default_body: BodyChoice = BodyChoice(None),  # noqa: B008 - frozen
        body_rules: Sequence[tuple[PathPattern, frozenset[str] | None, BodyChoice]] = (),
        pace: Pace | None = None,
        header_bytes_max: int | None = None,
        header_count_max: int | None = None,
        url_bytes_max: int | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        self.default_timeout = default_timeout
        self.timeouts = RouteRules(timeout_rules, attribute=TIMEOUT_ATTRIBUTE)
        self.covers = covers
        self.follows_header = follows_header
        self.header_name = header_name
        self.dry_run = dry_run
        self.default_body = default_body
        self.bodies = RouteRules(body_rules, attribute=BODY_LIMIT_ATTRIBUTE)
        self.pace = pace
        self.header_bytes_max = header_bytes_max
        self.header_count_max = header_count_max
        self.url_bytes_max = url_bytes_max
        self.clock = clock
        self.trusts: Callable[[Scope], bool] | None = None
        self.figures = DeadlineFigures()
        self._header = header_name.lower().encode()
        self._unit_ns = unit_ns_of(header_name)
        self._header_max_us = header_max_us
        self._lines_of: dict[asyncio.AbstractEventLoop, Lines] = {}

    def read_endpoints(self, endpoint_ahead: EndpointAhead, *, is_by_host: bool = False) -> None:
        """Obey `@timeout` and `@body_limit`, too."""
        self.timeouts.read_endpoints(endpoint_ahead, is_by_host=is_by_host)
        self.bodies.read_endpoints(endpoint_ahead, is_by_host=is_by_host)

    def told_us(self, scope: Scope) -> int | None:
        """The microseconds that a trusted caller gives this request; None where it tells none."""
        value = find_header(scope["headers"], self._header)
        if value is None or self.trusts is None or not self.trusts(scope):
            return None
        told_us = parse_timeout_us(value, unit_ns=self._unit_ns)
        if told_us is None:
            return None
        self.figures.incoming += 1
        return min(told_us, self._header_max_us)

    def lines(self, loop: asyncio.AbstractEventLoop) -> Lines:
        """The timers of this event loop."""
        try:
            return self._lines_of[loop]
        except KeyError:
            # One for each loop that is still open: a test may run many, one after another.
            open_ones = {of: lines for of, lines in self._lines_of.items() if not of.is_closed()}
            lines = open_ones[loop] = Lines(self.clock)
            self._lines_of = open_ones
            return lines

    def reset_counts(self) -> None:
        """Every count back to zero."""
        self.figures.reset()

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        yield from self.figures.timeout_families()
        yield from self.figures.refusal_families()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {"dry_run": self.dry_run, **self.figures.totals()}

"""Requests, a waiting line and a backend under a limit, simulated event by event.

    Poisson      .-- waiting line --.   permit   .--- backend ---------------------.
    arrivals --> | newest first     | ---------> | `servers` at once, the rest waits|--> answer
                 | bounded, patience|   limit    | `cores` shared by those          |
                 '------------------'     ^      '----------------------------------'
                                          '-- estimator <-- windows

The backend keeps one virtual time: how far each running request came.  It goes at the speed that
one of them has, min(1, cores / running) * speed, so that an event costs a push on a heap whatever
is shared (as in fluid models of processor sharing).  Time is simulated, and each draw is seeded:
a run gives the same figures everywhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, log
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.limits.concurrency.estimate import Estimator, Window

if TYPE_CHECKING:
    from collections.abc import Callable

S: Final = 1_000_000
MS: Final = 1_000

Draw: TypeAlias = "Callable[[Random], float]"  # the work of one request, in us of one core


def fixed_us(us: float) -> Draw:
    return lambda rng: us


def exponential_us(mean: float) -> Draw:
    return lambda rng: rng.expovariate(1 / mean)


def lognormal_us(mean: float, sigma: float) -> Draw:
    mu = log(mean) - sigma * sigma / 2
    return lambda rng: rng.lognormvariate(mu, sigma)


def mix_us(*parts: tuple[float, Draw]) -> Draw:
    """Each part with its share of the requests."""
    weights, draws = [part[0] for part in parts], [part[1] for part in parts]
    return lambda rng: rng.choices(draws, weights)[0](rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What holds from `at_us` on.  A backend that has `refuse_above` running refuses the next."""

    at_us: int = 0
    rate_per_s: float
    servers: float = inf
    cores: float = inf
    speed: float = 1.0
    refuse_above: float = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Phases, the work of a request, and the limits that are swept.

    `unloaded_us` is the mean latency without a queue, at first.  `settles_us` is when the last
    phase that matters begins.  `on_loop`: handlers that never wait; the event loop starts one when
    the last has ended.  An answer after `timeout_us` is of no use to its client.
    """

    name: str
    phases: tuple[Phase, ...]
    work: Draw
    unloaded_us: int
    limits: tuple[int, ...]
    seconds: int = 40
    settles_us: int = 0
    on_loop: bool = False
    waiting_max: int = 100
    patience_us: int = 500 * MS
    timeout_us: int = 2 * S
    seed: int = 1


@dataclass(slots=True)
class Run:
    """What came out; times in us."""

    answered: list[tuple[int, int, int]] = field(default_factory=list)  # when, after permit, whole
    limits: list[tuple[int, int]] = field(default_factory=list)  # from when, limit
    in_flight_max: int = 0
    arrived: int = 0
    shed: int = 0
    refused: int = 0


@dataclass(slots=True, eq=False)
class Request:
    arrived_us: float
    work_us: float
    permit_us: float = 0.0


class Backend:
    """Requests at work, in the order of the virtual time at which they end."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.virtual_us = 0.0
        self.at_us = 0.0
        self.running: list[tuple[float, int, Request]] = []
        self.queue: deque[Request] = deque()
        self.started = 0

    def advance(self, now_us: float) -> None:
        self.virtual_us += (now_us - self.at_us) * self._pace()
        self.at_us = now_us

    def _pace(self) -> float:
        running = len(self.running)
        return min(1.0, self.phase.cores / running) * self.phase.speed if running else 0.0

    def add(self, request: Request) -> None:
        self.queue.append(request)
        self.fill()

    def fill(self) -> None:
        while self.queue and len(self.running) < self.phase.servers:
            request = self.queue.popleft()
            self.started += 1
            heappush(self.running, (self.virtual_us + request.work_us, self.started, request))

    def next_us(self) -> float:
        """When the first one ends, if nothing changes until then."""
        pace = self._pace()
        if not pace:
            return inf
        return self.at_us + max(self.running[0][0] - self.virtual_us, 0.0) / pace

    def take(self) -> Request:
        request = heappop(self.running)[2]
        self.fill()
        return request


class Sums:
    """What the runtime counts in a window."""

    def __init__(self, started_us: int, in_flight: int, waiting: int) -> None:
        self.started_us = started_us
        self.samples = 0
        self.latency_sum_us = 0
        self.latency_min_us = 0
        self.log_sum = 0.0
        self.log_square_sum = 0.0
        self.dropped = 0
        self.in_flight_max = in_flight
        self.waiting_max = waiting

    def add(self, latency_us: int) -> None:
        log_us = log(latency_us)
        self.latency_min_us = min(self.latency_min_us or latency_us, latency_us)
        self.latency_sum_us += latency_us
        self.log_sum += log_us
        self.log_square_sum += log_us * log_us
        self.samples += 1

    def window(self, ended_us: int) -> Window:
        return Window(
            started_us=self.started_us,
            ended_us=ended_us,
            samples=self.samples,
            latency_sum_us=self.latency_sum_us,
            latency_min_us=self.latency_min_us,
            in_flight_max=self.in_flight_max,
            dropped=self.dropped,
            waiting_max=self.waiting_max,
            latency_log_sum=self.log_sum,
            latency_log_square_sum=self.log_square_sum,
        )


class Simulation:
    """One run of a scenario under one estimator."""

    def __init__(self, scenario: Scenario, estimator: Estimator[Any]) -> None:
        self.scenario = scenario
        self.estimator = estimator
        self.state = estimator.first()
        self.backend = Backend(scenario.phases[0])
        self.waiting: deque[Request] = deque()
        self.loop_queue: deque[Request] = deque()
        self.in_flight = 0
        self.run = Run(limits=[(0, self.state.limit)])
        self.sums = Sums(0, 0, 0)

    def simulated(self) -> Run:
        scenario = self.scenario
        arrivals, works = Random(scenario.seed), Random(scenario.seed + 1)
        changes = list(scenario.phases[1:])
        ends_us = scenario.seconds * S
        rate = scenario.phases[0].rate_per_s
        arrival_us = arrivals.expovariate(rate) * S
        while True:
            change_us = changes[0].at_us if changes else inf
            end_us = self.backend.next_us()
            now_us = min(arrival_us, change_us, end_us)
            if now_us >= ends_us:
                return self.run
            self.backend.advance(now_us)
            if now_us == end_us:
                self._end(now_us)
            elif now_us == change_us:
                self.backend.phase = phase = changes.pop(0)
                if phase.rate_per_s != rate:
                    rate = phase.rate_per_s
                    arrival_us = now_us + arrivals.expovariate(rate) * S
                self.backend.fill()
            else:
                self.run.arrived += 1
                self._arrive(Request(now_us, max(scenario.work(works), 1.0)), now_us)
                arrival_us = now_us + arrivals.expovariate(rate) * S

    def _arrive(self, request: Request, now_us: float) -> None:
        if self.scenario.on_loop:
            self.loop_queue.append(request)
            if not self.in_flight:
                self._admit(self.loop_queue.popleft(), now_us)
        elif self.in_flight < self.state.limit:
            self._admit(request, now_us)
        else:
            self.waiting.append(request)
            if len(self.waiting) > self.scenario.waiting_max:
                self.waiting.popleft()
                self.run.shed += 1
            self.sums.waiting_max = max(self.sums.waiting_max, len(self.waiting))

    def _admit(self, request: Request, now_us: float) -> None:
        if len(self.backend.running) >= self.backend.phase.refuse_above:
            self.sums.dropped += 1
            self.run.refused += 1
            return
        request.permit_us = now_us
        self.in_flight += 1
        self.sums.in_flight_max = max(self.sums.in_flight_max, self.in_flight)
        self.run.in_flight_max = max(self.run.in_flight_max, self.in_flight)
        self.backend.add(request)

    def _end(self, now_us: float) -> None:
        request = self.backend.take()
        self.in_flight -= 1
        latency_us = max(int(now_us - request.permit_us), 1)
        self.sums.add(latency_us)
        self.run.answered.append((int(now_us), latency_us, int(now_us - request.arrived_us)))
        self._fold(now_us)
        if self.scenario.on_loop:
            self._start_next_on_loop(now_us)
        else:
            self._admit_waiting(now_us)

    def _start_next_on_loop(self, now_us: float) -> None:
        oldest_us = now_us - self.scenario.timeout_us
        while self.loop_queue and self.loop_queue[0].arrived_us < oldest_us:
            self.loop_queue.popleft()  # the client has left
            self.run.shed += 1
        if self.loop_queue:
            self._admit(self.loop_queue.popleft(), now_us)

    def _admit_waiting(self, now_us: float) -> None:
        oldest_us = now_us - self.scenario.patience_us
        while self.waiting and self.in_flight < self.state.limit:
            newest = self.waiting.pop()
            if newest.arrived_us < oldest_us:
                self.run.shed += 1 + len(self.waiting)
                self.waiting.clear()
                return
            self._admit(newest, now_us)

    def _fold(self, now_us: float) -> None:
        estimator = self.estimator
        lasted_us = now_us - self.sums.started_us
        if lasted_us < estimator.window_us:
            return
        if self.sums.samples < estimator.samples_min and lasted_us < estimator.window_us_max:
            return
        before = self.state.limit
        self.state = estimator.after(self.state, self.sums.window(int(now_us)))
        if self.state.limit != before:
            self.run.limits.append((int(now_us), self.state.limit))
        self.sums = Sums(int(now_us), self.in_flight, len(self.waiting))


def simulated(scenario: Scenario, estimator: Estimator[Any]) -> Run:
    return Simulation(scenario, estimator).simulated()

"""Shared quotas that go on while Redis does not answer: each quota says how it is judged then.

    local    by a bucket in this process's memory (the default): each process grants the whole quota
    open     it admits
    closed   it refuses, for about a second

Whoever has used most of a quota in Redis is remembered here: when Redis goes away, nobody gets a
fresh burst.  What was granted meanwhile is not told to Redis afterwards.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.families import NO_LABELS, LabelSet, Value, counter, gauge
from perf_middleware.limits.rate.gcra import NEVER, Left, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.limits.rate.gcra import Demand
    from perf_middleware.limits.rate.stores.memory import MemoryQuotas
    from perf_middleware.limits.rate.stores.redis import SharedQuotas

logger = logging.getLogger("perf_middleware.rate_limit")

LOCAL, OPEN, CLOSED = WHEN_DOWN = ("local", "open", "closed")
CLOSED_WAIT_US: Final = 1_000_000
STEADY_US: Final = 1_000_000  # so long without a failure: it is well again, and that is told


class FleetQuotas:
    """The quotas in Redis, and what holds instead of those that it does not judge.

    `ensure_kept` is called when it was found away: it starts to connect where nothing does yet.
    """

    def __init__(
        self,
        shared: SharedQuotas,
        local: MemoryQuotas,
        *,
        ensure_kept: Callable[[], object] | None = None,
        clock: Clock = monotonic_us,
    ) -> None:
        self._shared = shared
        self.local = local
        self._ensure_kept = ensure_kept
        self._clock = clock
        self._failed_us: int | None = None  # the last time, while it is not well
        self.reason = ""
        self.alone = dict.fromkeys(WHEN_DOWN, 0)
        """Demands judged without Redis."""

    @property
    def is_shared(self) -> bool:
        """Whether Redis has judged of late, as far as anybody has asked."""
        return self._failed_us is None

    async def take(self, demands: Sequence[Demand]) -> Outcome:
        """Judge one request and charge it; never raises for what Redis does."""
        try:
            outcome = await self._shared.take(demands)
        except Exception as error:  # noqa: BLE001 - garbage makes a client library raise anything
            outcome = self._take_alone(demands)  # a mistake in the call is told here
            self._failed(error)
            return outcome
        if self._failed_us is not None:
            self._answered()
        for demand, left in zip(demands, outcome.left, strict=True):
            if 2 * left.full_us > demand.quota.window_us:
                # The other half costs no memory here: most clients never come so far.
                self.local.note(demand.key, demand.quota, left.full_us)
        return outcome

    async def forget(self, key: bytes) -> bool:
        """Its bucket is full again, here and in Redis; False where Redis could not be told."""
        self.local.forget(key)
        try:
            await self._shared.forget(key)
        except Exception as error:  # noqa: BLE001 - as in `take`
            self._failed(error)
            return False
        return True

    # --- without Redis --------------------------------------------------------------------------

    def _take_alone(self, demands: Sequence[Demand]) -> Outcome:
        by_rule = {}
        to_local = []
        for at, demand in enumerate(demands):
            if demand.when_down == OPEN or demand.when_down == CLOSED:
                self.alone[demand.when_down] += 1
                by_rule[at] = _ruled(demand)
            else:
                self.alone[LOCAL] += 1
                to_local.append(demand)
        refused = any(left.wait_us for left in by_rule.values())
        outcome = self.local.take(to_local, charge=not refused)
        if not by_rule:
            return outcome
        judged = iter(outcome.left)
        left = tuple(by_rule.get(at) or next(judged) for at in range(len(demands)))
        return Outcome(outcome.admitted and not refused, left)

    def _failed(self, error: Exception) -> None:
        was_well = self._failed_us is None
        self._failed_us = self._clock()
        self.reason = str(error)
        if was_well:
            logger.warning("quotas are judged without Redis, by each one's when_down: %s", error)
        if self._ensure_kept is not None:
            self._ensure_kept()

    def _answered(self) -> None:
        # One that is full refuses to charge and still refuses requests: not well yet, and not news.
        if self._failed_us is not None and self._clock() - self._failed_us >= STEADY_US:
            self._failed_us = None
            self.reason = ""
            logger.info("quotas are judged in Redis again")

    # --- what operators see ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        picture: dict[str, Any] = {"shared": self.is_shared, "alone": dict(self.alone)}
        if not self.is_shared:
            picture["reason"] = self.reason
        return picture | {"local": self.local.status()}

    def reset_counts(self) -> None:
        self.alone = dict.fromkeys(WHEN_DOWN, 0)
        self.local.reset_counts()

    def families(self) -> Iterator[Family]:
        """The figures for /metrics, with those of the memory behind it."""
        yield gauge(
            "perf_ratelimit_shared", "1 while quotas are judged in Redis, 0 while they are not.",
            (Value(NO_LABELS, int(self.is_shared)),), across="min",
        )  # fmt: skip
        yield counter(
            "perf_ratelimit_alone", "Quotas judged without Redis, by what they say for that.",
            tuple(Value(_BY[name], count) for name, count in self.alone.items()),
        )  # fmt: skip
        yield from self.local.families()


_BY = {name: LabelSet([("when_down", name)]) for name in WHEN_DOWN}


def _ruled(demand: Demand) -> Left:
    """By the quota's own word, for want of its bucket."""
    _, quota, cost, when_down = demand
    wait_us = CLOSED_WAIT_US if when_down == CLOSED and cost else 0
    if cost > quota.burst:
        wait_us = NEVER
    if when_down == CLOSED:
        return Left(0, wait_us, CLOSED_WAIT_US)
    return Left(quota.burst, wait_us, 0)

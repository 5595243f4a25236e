"""`perf.limits.rate`: the quotas of one app, whose they are, and what they did."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.errors import SettingsError
from perf_middleware.field_names import NameSequences
from perf_middleware.limits.callers import Callers
from perf_middleware.limits.networks import is_in
from perf_middleware.limits.rate import figures
from perf_middleware.limits.rate.fields import own_fields, seconds_up
from perf_middleware.limits.rate.figures import QuotaCounts
from perf_middleware.limits.rate.gcra import NEVER, Demand, Left
from perf_middleware.limits.rate.keys import KeySpec, own_key
from perf_middleware.limits.rate.plan_making import PlanMaker
from perf_middleware.limits.rate.specs import ALL, ATTRIBUTE, QuotaSpec
from perf_middleware.limits.rate.stores.memory import ENTRIES_MAX, MemoryQuotas
from perf_middleware.limits.rules import RouteRules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.limits.callers import Caller
    from perf_middleware.limits.networks import Network
    from perf_middleware.limits.rate.gcra import Quota
    from perf_middleware.limits.rate.plans import Batch, Entry, Plan, StandingQuota
    from perf_middleware.limits.rate.specs import RuleSpec
    from perf_middleware.limits.rate.stores.fallback import FleetQuotas
    from perf_middleware.limits.rules import EndpointAhead
    from perf_middleware.path_patterns import PathPattern

logger = logging.getLogger("perf_middleware.rate_limit")

FAILURES_TOLD_EVERY: Final = 1_000
EXEMPT_CALLERS_MAX: Final = 10_000  # of whom it is remembered


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take` and `peek` have found.  `retry_after_s` None: admitted, or it never will be."""

    admitted: bool
    remaining: int
    retry_after_s: int | None
    full_after_s: int


class RateLimit:
    """Judges the requests of one app; its layers ask it.

    `quotas` hold wherever no rule says otherwise, and beside those of the marks on an endpoint;
    the first of `rules` that matches counts, and takes the place of both.  `exempt`: networks of
    callers for whom no quota holds.

    Raises SettingsError for quotas and rules that contradict each other.
    """

    def __init__(
        self,
        *,
        quotas: Sequence[QuotaSpec] = (),
        rules: Sequence[RuleSpec] = (),
        exempt_paths: Sequence[PathPattern] = (),
        exempt: Sequence[Network] = (),
        callers: Callers | None = None,
        dry_run: bool = False,
        headers: bool = True,
        legacy_headers: bool = False,
        entries_max: int = ENTRIES_MAX,
        clock: Clock = monotonic_us,
    ) -> None:
        self.callers = Callers() if callers is None else callers
        self.callers.on_undeclared = _tell_undeclared
        self.memory = MemoryQuotas(entries_max=entries_max, clock=clock)
        self.shared: FleetQuotas | None = None
        self.tells = headers
        self.tells_legacy = legacy_headers
        self.own_fields = NameSequences(own_fields)
        self._dry_run = dry_run
        self._exempt_networks = tuple(exempt)
        self._exempt_callers: dict[Caller, bool] = {}
        self.has_exempt_networks = bool(exempt)
        self._exempted = QuotaCounts()
        self._failures = 0
        self._plans = PlanMaker(
            quotas, callers=self.callers, dry_run=dry_run, note_failure=self.note_failure
        )
        table = [(rule.pattern, rule.methods, self._plans.of_rule(rule)) for rule in rules]
        table += [(pattern, None, self._plans.exempt) for pattern in exempt_paths]
        self.rules: RouteRules[Plan] = RouteRules(table, attribute=ATTRIBUTE)
        self.default = self._plans.default
        self.other_paths: Collection[str] | None = self._other_paths()
        """Where another plan holds than the default one, None where not the path alone decides."""
        if self._plans.problems:
            raise SettingsError(tuple(self._plans.problems))

    @property
    def has_outer(self) -> bool:
        """Whether one of them is judged before the app's own middlewares."""
        return any(one.spec.stands == "outer" for one in self._plans.standing.values())

    @property
    def needs_routes(self) -> bool:
        """Whether one of them tells endpoints apart."""
        keys = (one.spec.key for one in self._plans.standing.values())
        return any(isinstance(key, KeySpec) and key.needs_route for key in keys)

    @property
    def has_inner(self) -> bool:
        """Whether one of them is judged inside the app's own middlewares."""
        return any(one.spec.stands == "inner" for one in self._plans.standing.values())

    def plan_for(self, scope: Mapping[str, Any]) -> Plan:
        """What holds for the request (or the websocket) of `scope`."""
        return self.rules.rule_for(scope) or self.default

    def read_endpoints(
        self,
        endpoint_ahead: EndpointAhead,
        endpoints: Iterable[Any] = (),
        *,
        is_by_host: bool = False,
    ) -> None:
        """Obey `@rate_limit`, too, and tell endpoints apart where a key has a `route`.

        `endpoints` are those of the app, in an order that all processes have: their quotas get
        their names now.  One that is not among them gets its own with its first request.
        """
        self._plans.name_endpoints(endpoints)
        self.rules.read_endpoints(self._plans.ahead(endpoint_ahead), is_by_host=is_by_host)
        self.other_paths = self._other_paths()

    def _other_paths(self) -> Collection[str] | None:
        return None if self.has_exempt_networks else self.rules.literals

    def share(self, fleet: Fleet) -> None:
        """From now on judge for all processes together, in Redis."""
        # Here and not above: redis-py takes a quarter of a second to import.
        from perf_middleware.limits.rate.stores.fallback import FleetQuotas
        from perf_middleware.limits.rate.stores.redis import SharedQuotas

        self.shared = FleetQuotas(
            SharedQuotas(fleet.link, namespace=fleet.namespace),
            self.memory,
            ensure_kept=fleet.ensure_kept,
        )

    def exempts(self, scope: Mapping[str, Any]) -> bool:
        """Whether the caller is in an exempt network; that is counted."""
        caller = self.callers.caller_of(scope)
        known = self._exempt_callers.get(caller)
        if known is None:
            known = caller.address is not None and is_in(caller.address, self._exempt_networks)
            if len(self._exempt_callers) >= EXEMPT_CALLERS_MAX:
                self._exempt_callers.clear()
            self._exempt_callers[caller] = known
        if known:
            self._exempted.exempt += 1
        return known

    def count_exempt(self) -> None:
        """A request to what is exempt as a whole."""
        self._exempted.exempt += 1

    # --- judging --------------------------------------------------------------------------------

    def judge(
        self, batch: Batch, scope: Mapping[str, Any]
    ) -> tuple[bool, Sequence[Entry], Sequence[Left]]:
        """Charge one request: whether it is admitted, by which quotas, and what is left of each."""
        left: Sequence[Left] = ()
        entries: Sequence[Entry] = batch.entries
        if batch.is_plain:
            admitted, left = self.memory.take_each(batch.draws(scope))
            self._count(entries, left, admitted=admitted)
            return admitted, entries, left
        entries, demands = batch.demands(entries, scope)
        if demands:
            admitted, left = self.memory.take(demands)
            self._count(entries, left, admitted=admitted)
            if not admitted:
                return False, entries, left
        if not batch.trials:
            return True, entries, left
        for entry, demand in zip(*batch.demands(batch.trials, scope), strict=True):
            self._count_trial(entry, self.memory.take_one(demand.key, demand.quota, demand.cost))
        return True, entries, left

    async def judge_shared(
        self, batch: Batch, scope: Mapping[str, Any]
    ) -> tuple[bool, Sequence[Entry], Sequence[Left]]:
        """The same for all processes."""
        shared = self.shared
        assert shared is not None  # noqa: S101 - who asks has looked
        entries, demands = batch.demands(batch.entries, scope)
        left: Sequence[Left] = ()
        if demands:
            admitted, left = await shared.take(demands)
            self._count(entries, left, admitted=admitted)
            if not admitted:
                return False, entries, left
        for entry, demand in zip(*batch.demands(batch.trials, scope), strict=True):
            self._count_trial(entry, (await shared.take((demand,))).left[0])
        return True, entries, left

    def note_failure(self, what: str, error: Exception) -> None:
        """Something of the app's, or of ours, has failed; the request goes on."""
        self._failures += 1
        if self._failures % FAILURES_TOLD_EVERY == 1:
            logger.error(
                "%s failed; told again after %s more", what, FAILURES_TOLD_EVERY, exc_info=error
            )

    @staticmethod
    def _count(entries: Sequence[Entry], left: Sequence[Left], *, admitted: bool) -> None:
        if admitted:
            for entry in entries:
                entry.counts.admitted += 1
            return
        for entry, (_, wait_us, _) in zip(entries, left, strict=True):
            if wait_us:
                entry.counts.refused += 1

    @staticmethod
    def _count_trial(entry: Entry, left: Left) -> None:
        if left.wait_us:
            entry.counts.would_refuse += 1
        else:
            entry.counts.admitted += 1

    # --- for the app's own code -----------------------------------------------------------------

    async def take(self, name: str, *key: str | bytes, cost: int = 1) -> Taken:
        """Draw `cost` from the bucket that the quota `name` has for `key`.

        `key` is what the quota tells requests apart by, as it is: an address, a header's value, a
        user; one value for each part of `client+route`, none for `global`.  So it is the bucket
        that those requests draw from.  Raises KeyError for a quota that is not known, ValueError
        for a cost below 1 and for another number of values.
        """
        if cost < 1:
            raise ValueError(f"a cost must be >= 1: {cost}")
        standing = self._named(name)
        return _taken(await self._draw(standing, self._key_for(standing, key), cost))

    async def peek(self, name: str, *key: str | bytes, cost: int = 1) -> Taken:
        """What `take` would find now; draws nothing."""
        standing = self._named(name)
        left = await self._draw(standing, self._key_for(standing, key), 0)
        return _taken(_as_if(left, standing.quota, cost))

    async def forget(self, name: str, *key: str | bytes) -> bool:
        """Let the bucket be full again: for whoever was limited by mistake.

        False where Redis could not be told: it is full in this process alone.
        """
        standing = self._named(name)
        made = self._key_for(standing, key)
        if self.shared is not None:
            return await self.shared.forget(made)
        self.memory.forget(made)
        return True

    async def _draw(self, standing: StandingQuota, key: bytes, cost: int) -> Left:
        if self.shared is None:
            return self.memory.take_one(key, standing.quota, cost)
        demand = Demand(key, standing.quota, cost, standing.spec.when_down)
        return (await self.shared.take((demand,))).left[0]

    def _named(self, name: str) -> StandingQuota:
        try:
            return self._plans.standing[name]
        except KeyError:
            known = ", ".join(self._plans.standing) or "there is none"
            raise KeyError(f"no quota is called {name!r}: {known}") from None

    def _key_for(self, standing: StandingQuota, values: tuple[str | bytes, ...]) -> bytes:
        spec_key = standing.spec.key
        if isinstance(spec_key, KeySpec):
            return spec_key.key_for(standing.prefix, self.callers, values)
        if len(values) != 1:
            raise ValueError(f"a key of {standing.name} has 1 value, not {len(values)}")
        return own_key(standing.prefix, values[0])

    # --- figures --------------------------------------------------------------------------------

    def families(self) -> Iterator[Family]:
        """The figures for /metrics."""
        counts = [(one.name, one.counts) for one in self._plans.standing.values()]
        yield from figures.families(
            [*counts, (ALL, self._exempted)],
            failures=self._failures,
        )
        yield from (self.memory if self.shared is None else self.shared).families()

    def reset_counts(self) -> None:
        """Every count back to zero; the buckets stay as they are."""
        for one in self._plans.standing.values():
            one.counts.reset()
        self._exempted.reset()
        self._failures = 0
        (self.memory if self.shared is None else self.shared).reset_counts()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {
            "quotas": {
                one.name: {"limit": str(one.limit), **one.counts.totals()}
                for one in self._plans.standing.values()
            },
            "dry_run": self._dry_run,
            "store": (self.memory if self.shared is None else self.shared).status(),
        }


def _tell_undeclared(address: str) -> None:
    logger.warning(
        "%s forwards requests for others and is not one of callers.trusted_proxies: all who come "
        "through it share one bucket; declare it if it is a proxy of yours",
        address,
    )


def _as_if(left: Left, quota: Quota, cost: int) -> Left:
    """`left` of a bucket, as if `cost` had been asked of it."""
    if cost > quota.burst:
        return Left(left.remaining, NEVER, left.full_us)
    wait_us = left.full_us + cost * quota.interval_us - quota.window_us
    return left if wait_us <= 0 else Left(left.remaining, wait_us, left.full_us)


def _taken(left: Left) -> Taken:
    return Taken(
        admitted=left.wait_us == 0,
        remaining=left.remaining,
        retry_after_s=seconds_up(left.wait_us) if left.wait_us > 0 else None,
        full_after_s=seconds_up(left.full_us),
    )

"""`perf.rate_limit`: the quotas of one app, whose they are, and what they did."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.endpoint_marks import mark_on
from perf_middleware.errors import SettingsError
from perf_middleware.limits.callers import Callers
from perf_middleware.limits.networks import is_in
from perf_middleware.limits.rate import figures
from perf_middleware.limits.rate.fields import seconds_up
from perf_middleware.limits.rate.figures import QuotaCounts
from perf_middleware.limits.rate.gcra import NEVER, Demand, Left
from perf_middleware.limits.rate.keys import KeySpec, own_key
from perf_middleware.limits.rate.plans import Entry, Plan, StandingQuota
from perf_middleware.limits.rate.specs import ALL, ATTRIBUTE, Exempt, QuotaSpec, as_name
from perf_middleware.limits.rate.stores.memory import ENTRIES_MAX, MemoryQuotas
from perf_middleware.limits.rules import RouteRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.fleet.runtime import Fleet
    from perf_middleware.limits.callers import Caller
    from perf_middleware.limits.networks import Network
    from perf_middleware.limits.rate.gcra import Quota
    from perf_middleware.limits.rate.keys import KeyOf
    from perf_middleware.limits.rate.plans import Batch
    from perf_middleware.limits.rate.specs import Mark, RuleSpec
    from perf_middleware.limits.rate.stores.fallback import FleetQuotas
    from perf_middleware.limits.rules import EndpointAhead
    from perf_middleware.path_patterns import PathPattern

logger = logging.getLogger("perf_middleware.rate_limit")

ELSEWHERE: Final = "*"  # the route of what no rule speaks of and whose endpoint is not known
FAILURES_TOLD_EVERY: Final = 1_000
EXEMPT_CALLERS_MAX: Final = 10_000  # of whom it is remembered
PLANS_MAX: Final = 10_000  # of endpoints


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take` and `peek` have found.  `retry_after_s` None: admitted, or it never will be."""

    admitted: bool
    remaining: int
    retry_after_s: int | None
    full_after_s: int


class _Ahead:
    """Stands for an endpoint: what the rules read as its mark is the plan made of its marks."""

    __slots__ = (ATTRIBUTE,)

    def __init__(self, plan: Plan | None) -> None:
        setattr(self, ATTRIBUTE, plan)


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
        self.memory = MemoryQuotas(entries_max=entries_max, clock=clock)
        self.shared: FleetQuotas | None = None
        self.tells = headers
        self.tells_legacy = legacy_headers
        self._dry_run = dry_run
        self._exempt_networks = tuple(exempt)
        self._exempt_callers: dict[Caller, bool] = {}
        self.has_exempt_networks = bool(exempt)
        self._standing: dict[str, StandingQuota] = {}
        self._of_marks: dict[tuple[tuple[Mark, ...], str], Plan] = {}
        self._exempted = QuotaCounts()
        self._failures = 0
        self._problems: list[str] = []
        self._everywhere = tuple(
            self._stand(spec, "default" if number == 0 else str(spec.limit), unique=True)
            for number, spec in enumerate(quotas)
        )
        self.exempt_plan = Plan(is_exempt=True)
        table = [(rule.pattern, rule.methods, self._of_rule(rule)) for rule in rules]
        table += [(pattern, None, self.exempt_plan) for pattern in exempt_paths]
        self.default = self._plan(self._everywhere, ELSEWHERE)
        self.rules: RouteRules[Plan] = RouteRules(table, attribute=ATTRIBUTE)
        if self._problems:
            raise SettingsError(tuple(self._problems))

    @property
    def has_any(self) -> bool:
        """Whether a quota of the settings holds anywhere: without any, only marks may limit."""
        return bool(self._standing)

    @property
    def has_inner(self) -> bool:
        """Whether one of them is judged inside the app's own middlewares."""
        return any(one.spec.stands == "inner" for one in self._standing.values())

    def plan_for(self, scope: Mapping[str, Any]) -> Plan:
        """What holds for the request (or the websocket) of `scope`."""
        return self.rules.rule_for(scope) or self.default

    def read_endpoints(self, endpoint_ahead: EndpointAhead) -> None:
        """Obey `@rate_limit`, too, and tell endpoints apart where a key has a `route`."""

        def ahead(scope: Mapping[str, Any]) -> _Ahead | None:
            endpoint = endpoint_ahead(scope)
            if endpoint is None:
                return None
            return _Ahead(self._of_endpoint(endpoint, scope.get("method", "GET")))

        self.rules.read_endpoints(ahead)

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
        entries, demands = batch.demands(batch.entries, scope)
        left: Sequence[Left] = ()
        if demands:
            admitted, left = self._take_all(demands)
            self._count(entries, left, admitted=admitted)
            if not admitted:
                return False, entries, left
        for entry, demand in zip(*batch.demands(batch.trials, scope), strict=True):
            self._count_trial(entry, self.memory.take_one(demand.key, demand.quota, demand.cost))
        return True, entries, left

    def _take_all(self, demands: Sequence[Demand]) -> tuple[bool, Sequence[Left]]:
        """All of them or none, as `memory.take` does, in half of its time.

        Each is of another bucket, and nothing else runs in between: what would pass when it was
        looked at passes when it is charged.
        """
        take_one = self.memory.take_one
        if len(demands) == 1:
            key, quota, cost, _ = demands[0]
            only = take_one(key, quota, cost)
            return not only[1], (only,)
        looked = [
            _as_if(take_one(key, quota, 0), quota, cost) for key, quota, cost, _ in demands[:-1]
        ]
        for one in looked:
            if one[1]:
                key, quota, cost, _ = demands[-1]
                return False, (*looked, _as_if(take_one(key, quota, 0), quota, cost))
        key, quota, cost, _ = demands[-1]
        last = take_one(key, quota, cost)
        if last[1]:
            return False, (*looked, last)
        first = [take_one(key, quota, cost) for key, quota, cost, _ in demands[:-1]]
        return True, (*first, last)

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
        for entry, one in zip(entries, left, strict=True):
            if one.wait_us:
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

    async def forget(self, name: str, *key: str | bytes) -> None:
        """Let the bucket be full again: for whoever was limited by mistake."""
        standing = self._named(name)
        made = self._key_for(standing, key)
        self.memory.forget(made)
        if self.shared is not None:
            await self.shared.forget(made)

    async def _draw(self, standing: StandingQuota, key: bytes, cost: int) -> Left:
        if self.shared is None:
            return self.memory.take_one(key, standing.quota, cost)
        demand = Demand(key, standing.quota, cost, standing.spec.when_down)
        return (await self.shared.take((demand,))).left[0]

    def _named(self, name: str) -> StandingQuota:
        try:
            return self._standing[name]
        except KeyError:
            known = ", ".join(self._standing) or "there is none"
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
        counts = [(one.name, one.counts) for one in self._standing.values()]
        yield from figures.families(
            [*counts, (ALL, self._exempted)],
            failures=self._failures,
        )
        yield from (self.memory if self.shared is None else self.shared).families()

    def reset_counts(self) -> None:
        """Every count back to zero; the buckets stay as they are."""
        for one in self._standing.values():
            one.counts.reset()
        self._exempted.reset()
        self._failures = 0
        (self.memory if self.shared is None else self.shared).reset_counts()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        return {
            "quotas": {
                one.name: {"limit": str(one.limit), **one.counts.totals()}
                for one in self._standing.values()
            },
            "dry_run": self._dry_run,
            "store": (self.memory if self.shared is None else self.shared).status(),
        }

    # --- making the plans -----------------------------------------------------------------------

    def _stand(self, spec: QuotaSpec, fallback: str, *, unique: bool = False) -> StandingQuota:
        """The quota of this name; another one of the same name gets its limit behind it.

        Several endpoints may name one quota and so share it, where they ask for the same.
        """
        if self._dry_run and not spec.dry_run:
            spec = replace(spec, dry_run=True)
        name = as_name(fallback) if spec.name is None else spec.name
        known = self._standing.get(name)
        if known is not None and unique and spec.name is not None:
            self._problems.append(f"ratelimit.quotas: two quotas are called {name!r}")
        number = 1
        while known is not None and (spec.name is None or known.spec != spec):
            number += 1
            behind = f" {spec.limit}" if number == 2 else f" {spec.limit} {number}"
            name = as_name((fallback if spec.name is None else spec.name)[:60] + behind)
            known = self._standing.get(name)
        if known is None:
            known = self._standing[name] = StandingQuota(name, spec)
        return known

    def _of_rule(self, rule: RuleSpec) -> Plan:
        if rule.exempt:
            return self.exempt_plan
        named = {one.name: one for one in self._everywhere}
        standing: list[StandingQuota] = []
        for quota in (one.name for one in self._everywhere) if rule.quotas is None else rule.quotas:
            if isinstance(quota, QuotaSpec):
                standing.append(self._stand(quota, rule.name))
            elif quota in named:
                standing.append(named[quota])
            else:
                known = ", ".join(named) or "there is none"
                self._problems.append(
                    f"ratelimit.rules: {rule.pattern.text} names the quota {quota!r}, "
                    f"which is none of ratelimit.quotas: {known}"
                )
        for one in standing:
            if rule.cost > one.quota.burst:
                self._problems.append(
                    f"ratelimit.rules: {rule.pattern.text} has a cost of {rule.cost}, and the "
                    f"quota {one.name!r} a burst of {one.quota.burst}: no request would ever pass"
                )
        return self._plan(standing, rule.name, cost=rule.cost)

    def _of_endpoint(self, endpoint: Any, method: str) -> Plan | None:
        marks: tuple[Mark, ...] = mark_on(endpoint, method, ATTRIBUTE) or ()
        needs_route = any(
            isinstance(one.spec.key, KeySpec) and one.spec.key.needs_route
            for one in self._everywhere
        )
        if not marks and not needs_route:
            return None
        module = getattr(endpoint, "__module__", "")
        name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
        route = f"{module}.{name}"
        key = (marks, route)
        plan = self._of_marks.get(key)
        if plan is None:
            if any(isinstance(mark, Exempt) for mark in marks):
                plan = self.exempt_plan
            else:
                own = [self._stand(m, name) for m in marks if isinstance(m, QuotaSpec)]
                plan = self._plan([*self._everywhere, *own], route)
            if len(self._of_marks) < PLANS_MAX:
                self._of_marks[key] = plan
        return plan

    def _plan(self, standing: Sequence[StandingQuota], route: str, *, cost: int = 1) -> Plan:
        # Each once: two marks that ask for one quota are one.
        return Plan([self._entry(one, route, cost) for one in dict.fromkeys(standing)])

    def _entry(self, standing: StandingQuota, route: str, cost: int) -> Entry:
        spec = standing.spec
        key_of: KeyOf
        if isinstance(spec.key, KeySpec):
            key_of = spec.key.key_of(standing.prefix, self.callers, route)
        else:
            key_of = self._own_key_of(standing, spec.key)
        cost_of = exempts = None
        if callable(spec.cost):
            cost_of = self._guarded(spec.cost, int, 1, f"the cost of {standing.name}")
        elif spec.cost != 1:
            cost = spec.cost
        if spec.exempt is not None:
            exempts = self._guarded(spec.exempt, bool, False, f"an exemption of {standing.name}")
        return Entry(standing, key_of=key_of, cost=cost, cost_of=cost_of, exempts=exempts)

    def _own_key_of(self, standing: StandingQuota, call: Callable[..., Any]) -> KeyOf:
        prefix, client_of = standing.prefix, self.callers.client_of

        def key_of(scope: Mapping[str, Any]) -> bytes | None:
            try:
                value = call(scope)
                if value is None:
                    return None
                if isinstance(value, int):
                    value = str(value)
                return own_key(prefix, value)
            except Exception as error:  # noqa: BLE001 - the app's code; never a 500
                self.note_failure(f"the key of {standing.name}", error)
                return prefix + b"a" + client_of(scope)

        return key_of

    def _guarded(
        self, call: Callable[..., Any], kind: type, instead: Any, what: str
    ) -> Callable[[Mapping[str, Any]], Any]:
        def guarded(scope: Mapping[str, Any]) -> Any:
            try:
                return kind(call(scope))
            except Exception as error:  # noqa: BLE001 - the same
                self.note_failure(what, error)
                return instead

        return guarded


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

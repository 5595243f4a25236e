"""Makes the plans: of the quotas and rules of the settings, and of the marks on endpoints.

A quota has one name and one set of figures, wherever it holds; a plan adds to it how a request
there makes its key, and what it costs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.endpoint_marks import METHODS, bearers_of
from perf_middleware.limits.rate.keys import KeySpec, own_key
from perf_middleware.limits.rate.plans import Entry, Plan, StandingQuota
from perf_middleware.limits.rate.specs import ATTRIBUTE, Exempt, QuotaSpec, as_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perf_middleware.limits.callers import Callers
    from perf_middleware.limits.rate.keys import KeyOf
    from perf_middleware.limits.rate.specs import Mark, RuleSpec
    from perf_middleware.limits.rules import EndpointAhead

ELSEWHERE: Final = "*"  # the route of what no rule speaks of and whose endpoint is not known
PLANS_MAX: Final = 10_000  # of endpoints; for one beyond the quotas of the settings hold


class Ahead:
    """Stands for an endpoint: what the rules read as its mark is the plan made of its marks."""

    __slots__ = (ATTRIBUTE,)

    def __init__(self, plan: Plan | None) -> None:
        setattr(self, ATTRIBUTE, plan)


class PlanMaker:
    """`problems` are what was found wrong, a sentence each; `standing` the quotas by name."""

    def __init__(
        self,
        quotas: Sequence[QuotaSpec],
        *,
        callers: Callers,
        dry_run: bool,
        note_failure: Callable[[str, Exception], None],
    ) -> None:
        self.problems: list[str] = []
        self.standing: dict[str, StandingQuota] = {}
        self._callers = callers
        self._dry_run = dry_run
        self._note_failure = note_failure
        # With what the identities in the key are those of: it must live as long.
        self._of_endpoints: dict[tuple[int, ...], tuple[Plan, Any, list[Any]]] = {}
        self._of_bearers: dict[tuple[int, int], list[StandingQuota]] = {}
        self._routes: dict[str, int] = {}
        self._everywhere = tuple(
            self._stand(spec, "default" if number == 0 else str(spec.limit), unique=True)
            for number, spec in enumerate(quotas)
        )
        self._needs_route = any(
            isinstance(one.spec.key, KeySpec) and one.spec.key.needs_route
            for one in self._everywhere
        )
        self.exempt = Plan(is_exempt=True)
        self.default = self._plan(self._everywhere, ELSEWHERE)

    def ahead(self, endpoint_ahead: EndpointAhead) -> EndpointAhead:
        """From a scope to what stands for its endpoint; None where none is known."""

        def ahead(scope: Mapping[str, Any]) -> Ahead | None:
            endpoint = endpoint_ahead(scope)
            if endpoint is None:
                return None
            return Ahead(self._of_endpoint(endpoint, scope.get("method", "GET")))

        return ahead

    def _stand(self, spec: QuotaSpec, fallback: str, *, unique: bool = False) -> StandingQuota:
        """The quota of this name; another one of the same name gets its limit behind it.

        Several endpoints may name one quota and so share it, where they ask for the same.
        """
        if self._dry_run and not spec.dry_run:
            spec = replace(spec, dry_run=True)
        name = as_name(fallback) if spec.name is None else spec.name
        known = self.standing.get(name)
        if known is not None and unique and spec.name is not None:
            self.problems.append(f"ratelimit.quotas: two quotas are called {name!r}")
        number = 1
        while known is not None and (spec.name is None or known.spec != spec):
            number += 1
            behind = f" {spec.limit}" if number == 2 else f" {spec.limit} {number}"
            name = as_name((fallback if spec.name is None else spec.name)[:60] + behind)
            known = self.standing.get(name)
        if known is None:
            known = self.standing[name] = StandingQuota(name, spec)
        return known

    def of_rule(self, rule: RuleSpec) -> Plan:
        """What holds for the paths of a rule."""
        if rule.exempt:
            return self.exempt
        named = {one.name: one for one in self._everywhere}
        standing: list[StandingQuota] = []
        for quota in (one.name for one in self._everywhere) if rule.quotas is None else rule.quotas:
            if isinstance(quota, QuotaSpec):
                standing.append(self._stand(quota, rule.name))
            elif quota in named:
                standing.append(named[quota])
            else:
                known = ", ".join(named) or "there is none"
                self.problems.append(
                    f"ratelimit.rules: {rule.pattern.text} names the quota {quota!r}, "
                    f"which is none of ratelimit.quotas: {known}"
                )
        for one in standing:
            if rule.cost > one.quota.burst:
                self.problems.append(
                    f"ratelimit.rules: {rule.pattern.text} has a cost of {rule.cost}, and the "
                    f"quota {one.name!r} a burst of {one.quota.burst}: no request would ever pass"
                )
        return self._plan(standing, rule.name, cost=rule.cost)

    def name_endpoints(self, endpoints: Iterable[Any]) -> None:
        """Make the plans of `endpoints` in their order.

        Buckets in Redis go by these names: were they given in the order of the first requests, one
        process would charge another's endpoint.
        """
        for endpoint in endpoints:
            for method in METHODS:
                self._of_endpoint(endpoint, method)

    def _of_endpoint(self, endpoint: Any, method: str) -> Plan | None:
        bearers = bearers_of(endpoint, method, ATTRIBUTE)
        if not bearers and not self._needs_route:
            return None
        key = (id(endpoint), *map(id, bearers))
        known = self._of_endpoints.get(key)
        if known is not None:
            return known[0]
        if len(self._of_endpoints) >= PLANS_MAX:
            return None
        if any(isinstance(mark, Exempt) for one in bearers for mark in getattr(one, ATTRIBUTE)):
            plan = self.exempt
        else:
            own = [quota for one in bearers for quota in self._own(endpoint, one)]
            name = _name_of(bearers[-1] if bearers else endpoint)
            plan = self._plan([*self._everywhere, *own], self._route(".".join(name)))
        self._of_endpoints[key] = plan, endpoint, bearers
        return plan

    def _own(self, endpoint: Any, bearer: Any) -> list[StandingQuota]:
        """The quotas of one bearer's marks: of a class's all its methods have the same."""
        key = (id(endpoint), id(bearer))
        own = self._of_bearers.get(key)
        if own is None:
            marks: tuple[Mark, ...] = getattr(bearer, ATTRIBUTE)
            _, name = _name_of(bearer)
            own = [self._stand(mark, name) for mark in marks if isinstance(mark, QuotaSpec)]
            self._of_bearers[key] = own
        return own

    def _route(self, name: str) -> str:
        """`name`, with a number where another endpoint is called so: closures, lambdas."""
        number = self._routes[name] = self._routes.get(name, 0) + 1
        return name if number == 1 else f"{name} {number}"

    def _plan(self, standing: Sequence[StandingQuota], route: str, *, cost: int = 1) -> Plan:
        # Each once: two marks that ask for one quota are one.
        return Plan([self._entry(one, route, cost) for one in dict.fromkeys(standing)])

    def _entry(self, standing: StandingQuota, route: str, cost: int) -> Entry:
        spec = standing.spec
        key_of: KeyOf
        if isinstance(spec.key, KeySpec):
            key_of = spec.key.key_of(standing.prefix, self._callers, route)
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
        prefix, client_of = standing.prefix, self._callers.client_of

        def key_of(scope: Mapping[str, Any]) -> bytes | None:
            try:
                value = call(scope)
                if value is None:
                    return None
                if isinstance(value, int):
                    value = str(value)
                return own_key(prefix, value)
            except Exception as error:  # noqa: BLE001 - the app's code; never a 500
                self._note_failure(f"the key of {standing.name}", error)
                return prefix + b"a" + client_of(scope)

        return key_of

    def _guarded(
        self, call: Callable[..., Any], kind: type, instead: Any, what: str
    ) -> Callable[[Mapping[str, Any]], Any]:
        def guarded(scope: Mapping[str, Any]) -> Any:
            try:
                return kind(call(scope))
            except Exception as error:  # noqa: BLE001 - the same
                self._note_failure(what, error)
                return instead

        return guarded


def _name_of(endpoint: Any) -> tuple[str, str]:
    """Its module and its name there; of a partial those of its function."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
    return getattr(endpoint, "__module__", ""), name

"""What becomes of a request that memory cannot answer.

One of those who miss the same at the same time leads, the others wait for its answer.  Who leads
looks into the store that all processes share, if there is one, and only then asks the app.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.caching.decorators import policy_of
from perf_middleware.caching.middleware.answers import answer
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.middleware.outcomes import bypass, hit, select
from perf_middleware.caching.middleware.revalidation import refresh, validation_of
from perf_middleware.caching.reuse import Reuse, decide_reuse, may_refresh, may_serve_on_error
from perf_middleware.caching.runtime.flights import ATTEMPTS_MAX, Flight
from perf_middleware.layer_meter import METER, OUTSIDE

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.stores.shared import Asked

UNPROVEN_WAIT_S: Final = 1.0
"""For the answer of a route that has given none as yet: it may be a report that is never stored."""


async def miss(
    app: ASGIApp,
    cache: ResponseCache,
    request: CacheRequest,
    reason: Forward,
    stored: StoredResponse | None = None,
) -> Any:
    """Ask the app; several who miss the same at the same time ask once."""
    flight: Flight | None = None
    until_s: float | None = None
    shared = cache.shared
    shared_s: float | None = None
    asked: Asked | None = None
    collapses = _collapses(cache, request, stored)
    if shared is not None and collapses and request.key not in cache.flights.open:
        # Nothing is awaited between here and the look-up.
        shared_s = _worth_sharing_s(cache, request, stored)
        if shared_s:
            asked = shared.ask(request)
    if collapses:
        for _ in range(ATTEMPTS_MAX):
            flight = cache.flights.lead(request.key, request.scope)
            if flight is not None or not cache.flights.is_led_here(request.key):
                break
            if until_s is None:
                wait_s = worth_waiting_s(cache, request, stored)
                if not wait_s:
                    break
                until_s = anyio.current_time() + wait_s
            followed = cache.flights.flight_of(request.key)
            if followed is None:
                continue  # it was that of another loop, and has ended in this moment
            began_us = cache.clock()
            meter = request.scope.get(METER)
            region = OUTSIDE if meter is None else meter.region
            if meter is not None:
                meter.cross(OUTSIDE, perf_counter_ns())  # who waits does no work
            outcome = await cache.flights.follow(followed, until_s=until_s)
            if meter is not None:
                meter.cross(region, perf_counter_ns())
            if cache.note_part is not None:
                cache.note_part("cache", cache.clock() - began_us)
            if outcome == "late":
                # Its leader's client may read as slowly as it likes: nobody waits for that one.
                cache.flights.land(followed, "gone")
                flight = cache.flights.lead(request.key, request.scope)
            if outcome in {"unstorable", "late", "full"}:
                break
            rule = cache.rules.rule_for(request.path)
            if rule is not request.rule and not request.take_rule(rule):
                return await bypass(app, cache, request, "rule", may_keep=False)
            if await _answered_by_another(cache, request, outcome == "failed"):
                return None
    if shared is not None and shared_s is None:
        shared_s = _worth_sharing_s(cache, request, stored)
    if shared is not None and shared_s:
        try:
            wait_s = 0.0 if flight is None else shared_s
            found = await shared.look_up(request, flight, wait_s=wait_s, asked=asked)
        except BaseException:
            if flight is not None:
                cache.flights.land(flight, "gone")
            raise
        if found is not None and found.is_safe_for(request.credentials):
            now_us = cache.clock()
            reuse = decide_reuse(found, request.directives, now_us=now_us)
            if reuse is not Reuse.VALIDATE:
                if flight is not None:
                    cache.flights.land(flight, "stored")
                if reuse is Reuse.REFRESH:
                    request.freeze()  # what a layer outside is told of the hit is not the app's
                await hit(cache, request, found, now_us, stale=reuse is not Reuse.FRESH)
                if reuse is Reuse.REFRESH and may_refresh(request.directives):
                    await refresh(cache, app, request, found)
                return None
            stored = found
    forwarding = Forwarding(
        cache,
        validation_of(request, stored) if stored is not None else request,
        reason,
        flight=flight,
        validating=stored,
    )
    return await forwarding.run(app)


def _collapses(cache: ResponseCache, request: CacheRequest, stored: StoredResponse | None) -> bool:
    if not cache.options.collapse or request.is_head:
        return False
    if stored is not None and stored.lifetimes.must_validate:
        return False  # what another's call brings would have to be asked about again
    directives = request.directives
    if directives is not None and (directives.no_store or directives.no_cache):
        return False
    if hash(request.primary) in cache.unstorable:
        return False
    return not request.is_for_one_client


def _worth_sharing_s(
    cache: ResponseCache, request: CacheRequest, stored: StoredResponse | None
) -> float:
    """How long another process's answer is worth waiting for: 0 where none would do."""
    directives = request.directives
    if directives is not None and (directives.no_store or directives.no_cache):
        return 0.0
    if stored is not None and stored.lifetimes.must_validate:
        return 0.0  # the app is to be asked each time
    if stored is None and hash(request.primary) in cache.unstorable:
        return 0.0
    return worth_waiting_s(cache, request, stored)


def worth_waiting_s(
    cache: ResponseCache, request: CacheRequest, stored: StoredResponse | None
) -> float:
    """How long another's answer is worth waiting for: 0 where none of its route is stored."""
    options = cache.options
    if (
        stored is not None
        or request.rule is not None
        or options.default_ttl_s is not None
        or options.heuristic
    ):
        return options.collapse_wait_s
    likely = cache.evidence.of(request.path)
    if likely or _leader_has_rule(cache, request):
        return options.collapse_wait_s
    return min(UNPROVEN_WAIT_S, options.collapse_wait_s) if likely is None else 0.0


async def _answered_by_another(cache: ResponseCache, request: CacheRequest, failed: bool) -> bool:
    """Whether the answer that another request brought is good for this one."""
    stored, _ = select(cache, request)
    if stored is None or not stored.is_safe_for(request.credentials):
        return False
    if cache.tracked.may_not_use(stored):
        return False
    now_us = cache.clock()
    if failed:
        if not may_serve_on_error(stored, request.directives, now_us=now_us):
            return False
    elif decide_reuse(stored, request.directives, now_us=now_us) is Reuse.VALIDATE:
        return False
    cache.figures.of(stored.route).collapsed += 1
    if cache.name_route is not None:
        cache.name_route(stored.route)
    tail = cache.forward_fields(stored, "miss", collapsed=True, detail=request.rule_name)
    await answer(cache, request, stored, tail)
    return True


def _leader_has_rule(cache: ResponseCache, request: CacheRequest) -> bool:
    return policy_of(cache.flights.leader_of(request.key) or request.scope) is not None

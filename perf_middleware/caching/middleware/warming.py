"""A request of warming's at the cache: fresh is left as it is, all else is asked of the app.

No figure and no order counts it as a client's: neither a hit nor a miss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.caching.judgement import credentials_reason
from perf_middleware.caching.middleware.answers import answer
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.middleware.missing import worth_waiting_s
from perf_middleware.caching.middleware.revalidation import refresh
from perf_middleware.caching.runtime.explain import selected
from perf_middleware.caching.runtime.request import CacheRequest, personal
from perf_middleware.caching.special import DIRECTIVES
from perf_middleware.caching.warming.asked import SPARED

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.flights import Flight
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.warming.asked import Asked


async def warm(app: ASGIApp, cache: ResponseCache, request: CacheRequest, asked: Asked) -> Any:
    """Do what `asked` wants with this request, and tell it what came of it."""
    scope = request.scope
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in DIRECTIVES]
    request.freeze()
    request.directives = None
    request.spared = SPARED
    asked.outcome = "unstored"
    why = _why_not(cache, request)
    if why is not None:
        asked.why = why
        forwarding = Forwarding(
            cache, request, "bypass", detail=why, may_keep=False, counted_as=None
        )
        return await forwarding.run(app)
    asked.primary = request.primary
    began_us, purges_seen = cache.clock(), cache.purges.newest
    stored = _of_anybody(selected(cache, request.primary, request.lines), request)
    if stored is None:
        flight = None
        if cache.options.collapse:
            flight = cache.flights.lead(request.key, request.scope)
            if flight is None:
                asked.outcome = "fresh"  # a client asks the app for it just now
                return await _answer(request, cache, None)
        stored = _of_anybody(await _shared(cache, request, flight), request)
        if stored is None:
            # Who misses the same meanwhile, in whichever process, waits for this.
            forwarding = Forwarding(cache, request, "uri-miss", flight=flight, counted_as=None)
            await forwarding.run(app)
            _tell(cache, request, asked, began_us, purges_seen)
            return None
        if flight is not None:
            cache.flights.land(flight, "stored")
    if _is_fresh(cache, stored, asked.margin_us):
        asked.outcome = "fresh"
        return await _answer(request, cache, stored)
    request.key = stored.key
    await refresh(cache, app, request, stored)
    _tell(cache, request, asked, began_us, purges_seen, before=stored)
    await _answer(request, cache, selected(cache, request.primary, request.lines))
    return None


def _why_not(cache: ResponseCache, request: CacheRequest) -> str | None:
    """Why no answer to this request can be stored, as `CacheLayer._considered` has it."""
    rule = request.rule
    if rule is not None and not request.take_rule(rule):
        return "rule"
    whose = personal(request.scope)
    if whose is not None and not (rule is not None and rule.is_for_all_or_one):
        return whose
    credentials = request.credentials
    if credentials and not (rule is not None and rule.covers(credentials)):
        return credentials_reason(credentials)
    return None


def _is_fresh(cache: ResponseCache, stored: StoredResponse, margin_us: int) -> bool:
    if stored.lifetimes.must_validate or cache.tracked.may_not_use(stored):
        return False
    return cache.clock() + margin_us < stored.fresh_until_us


def _of_anybody(stored: StoredResponse | None, request: CacheRequest) -> StoredResponse | None:
    return stored if stored is not None and stored.is_safe_for(request.credentials) else None


async def _shared(
    cache: ResponseCache, request: CacheRequest, flight: Flight | None
) -> StoredResponse | None:
    """What all processes share, waited for where another one asks its app for it; else `flight` has
    the lease: no other process asks meanwhile.
    """
    if cache.shared is None:
        return None
    wait_s = 0.0 if flight is None else worth_waiting_s(cache, request, None)
    try:
        return await cache.shared.look_up(request, flight, wait_s=wait_s)
    except BaseException:
        if flight is not None:
            cache.flights.land(flight, "gone")
        raise


def _tell(
    cache: ResponseCache,
    request: CacheRequest,
    asked: Asked,
    began_us: int,
    purges_seen: int,
    *,
    before: StoredResponse | None = None,
) -> None:
    """Whether there is something newer in the store than at `began_us`."""
    asked.primary = request.primary  # a rule of the endpoint's may have made another one of it
    now = selected(cache, request.primary, request.lines)
    if now is not None and now is not before and now.stored_us >= began_us:
        asked.outcome = "warmed"
    elif now is before and now is not None and now.refresh_from_us > began_us:
        asked.outcome, asked.why = "failed", "the app failed"
    elif now is not None and _is_fresh(cache, now, asked.margin_us):
        asked.outcome = "fresh"  # another process has renewed it
    else:
        asked.why = cache.refused.last(request.primary) or ""
        if not asked.why and cache.purges.newest != purges_seen:
            asked.was_overtaken = True
            asked.why = "something was purged meanwhile"


async def _answer(
    request: CacheRequest, cache: ResponseCache, stored: StoredResponse | None
) -> None:
    """Something for the layers outside, which expect an answer; from the store, so that what
    encodes it further out makes the coded forms ahead of clients too.
    """
    if stored is None:
        await request.send({"type": "http.response.start", "status": 204, "headers": []})
        await request.send({"type": "http.response.body", "body": b""})
        return
    await answer(cache, request, stored, [])

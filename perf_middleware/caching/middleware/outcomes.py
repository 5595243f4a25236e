"""The ends that a request may come to: an answer from the store, a call of the app, or neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.caching.middleware.answers import answer, send_gateway_timeout, send_whole
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.stored import StoredResponse
from perf_middleware.caching.variants import Variants
from perf_middleware.coded_forms import WANTED

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest


def select(cache: ResponseCache, request: CacheRequest) -> tuple[StoredResponse | None, Forward]:
    """What is stored for this request, or which kind of miss it is."""
    found = cache.store.get(request.primary)
    if found is None:
        return None, "uri-miss"
    if type(found) is Variants:
        key = found.key_for(request.lines)
        if key is None:
            return None, "vary-miss"
        request.key = key
        found = cache.store.get(key)
    if type(found) is StoredResponse:
        return found, "miss"
    return None, "vary-miss"


async def hit(
    cache: ResponseCache, request: CacheRequest, stored: StoredResponse, now_us: int, *, stale: bool
) -> None:
    """Answer from the store."""
    stored.hits += 1
    counts = stored.counts
    counts.hits += 1
    counts.stale_hits += stale
    if cache.name_route is not None:
        cache.name_route(stored.route)
    if cache.hit_hooks:
        cache.tell("hit", stored)
    if cache.note_part is not None:
        cache.note_part("cache", cache.clock() - now_us)
    tail = stored.show(now_us, cache.shown_status)
    if (
        request.is_for_one_client
        or request.rewritten_from is not None
        or stored.choice is not None
        or WANTED in request.scope
    ):
        counts.hit_bytes += await answer(cache, request, stored, tail)
        return
    is_head = request.is_head
    await send_whole(request.send, stored, tail, head=is_head)
    counts.hit_bytes += 0 if is_head else len(stored.body)


async def bypass(
    app: ASGIApp, cache: ResponseCache, request: CacheRequest, why: str, *, may_keep: bool = True
) -> Any:
    """Ask the app, whatever is stored."""
    if request.wants_only_stored:
        return await only_if_cached(cache, request, "bypass")
    forwarding = Forwarding(
        cache,
        request,
        "bypass",
        detail=why,
        may_keep=may_keep,
        counted_as=why.partition(":")[0],
    )
    return await forwarding.run(app)


async def only_if_cached(cache: ResponseCache, request: CacheRequest, reason: Forward) -> None:
    """Nothing stored is good enough, and the app is not to be asked (RFC 9111 §5.2.1.7)."""
    misses = cache.figures.of("unmatched").misses
    misses["only-if-cached"] = misses.get("only-if-cached", 0) + 1
    tail = []
    if cache.shown_status is not None:
        tail.append((b"cache-status", cache.shown_status.unasked("only-if-cached")))
    await send_gateway_timeout(request.send, tail)

"""Asking the app about what is stored: before answering, or behind an answer that was stale."""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.runtime.request import CacheRequest, Silence
from perf_middleware.caching.special import CONDITIONAL, DIRECTIVES, PARTIAL, PRECONDITIONS
from perf_middleware.caching.stored import US_PER_S

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.stored import StoredResponse

logger = logging.getLogger("perf_middleware.caching")

PAUSE_US: Final = US_PER_S  # after a refresh that failed: no call of the app for each hit
_OURS = CONDITIONAL | PARTIAL | PRECONDITIONS


def validation_of(request: CacheRequest, stored: StoredResponse) -> CacheRequest:
    """The client's request with the stored validators in place of its own conditions (§4.3.1)."""
    return request.rewritten(
        [pair for pair in request.came["headers"] if pair[0].lower() not in _OURS]
        + stored.validators
    )


async def refresh(
    cache: ResponseCache, app: ASGIApp, request: CacheRequest, stored: StoredResponse
) -> None:
    """Ask the app anew, after the client has its answer; one at a time for each key.

    Runs in the request's own task, as a background task of Starlette does, and is bounded in number
    and time.  A failure is counted and logged; the stored response stays what it is.
    """
    key = stored.key
    if cache.is_overloaded is not None and cache.is_overloaded():
        return  # the next hit asks again, as long as the stored one may be shown
    if key in cache.refreshing or len(cache.refreshing) >= cache.options.refresh_max:
        return
    if key in cache.flights.open or cache.clock() < stored.refresh_from_us:
        return
    cache.refreshing.add(key)
    asking = request.rewritten(
        [
            pair
            for pair in request.came["headers"]
            if pair[0].lower() not in _OURS and pair[0].lower() not in DIRECTIVES
        ]
        + stored.validators,
        method="GET",
    )
    silence = Silence()
    asking.send, asking.receive = silence.send, silence.receive
    asking.directives = None
    forwarding = Forwarding(cache, asking, "stale", validating=stored, counted_as=None)
    try:
        if await _is_renewed(cache, request):
            return
        with anyio.move_on_after(cache.options.refresh_timeout_s) as deadline:

            def over() -> None:
                # What the app does behind its answer is no part of the refresh.
                deadline.deadline = inf
                cache.refreshing.discard(key)

            forwarding.on_release = over
            await forwarding.run(app)
        if deadline.cancelled_caught:
            logger.warning("a refresh in the background took too long: %s", stored.route)
            forwarding.failed = True
    except Exception:
        logger.exception("a refresh in the background failed: %s", stored.route)
        forwarding.failed = True
    finally:
        cache.refreshing.discard(key)
        cache.figures.background_failed += forwarding.failed
        if forwarding.failed:
            stored.refresh_from_us = cache.clock() + PAUSE_US


async def _is_renewed(cache: ResponseCache, request: CacheRequest) -> bool:
    """Whether another process has a fresh one, which is in memory now."""
    if cache.shared is None:
        return False
    found = await cache.shared.look_up(request, None, wait_s=0.0)
    return found is not None and cache.clock() < found.early_from_us

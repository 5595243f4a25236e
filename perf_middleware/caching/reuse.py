"""May this stored response answer this request now?  (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861)

FRESH        send it
STALE        send it; nobody needs to ask the app (the client said max-stale)
REFRESH      send it stale and ask the app in the background (stale-while-revalidate)
VALIDATE     ask the app first
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from perf_middleware.caching.stored import US_PER_S

if TYPE_CHECKING:
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.syntax.directives import RequestDirectives


FAILURES: Final = frozenset({500, 502, 503, 504})
"""Answers that a stale response may stand in for (RFC 5861 §4)."""


class Reuse(Enum):
    FRESH = "fresh"
    STALE = "stale"
    REFRESH = "refresh"
    VALIDATE = "validate"


def decide_reuse(
    stored: StoredResponse, request: RequestDirectives | None, *, now_us: int
) -> Reuse:
    """The verdict on `stored` for a request with these directives (None: without any)."""
    lifetimes = stored.lifetimes
    if lifetimes.must_validate:
        return Reuse.VALIDATE
    left_us = stored.fresh_until_us - now_us
    if request is None:
        if left_us > 0:
            return Reuse.FRESH
        return Reuse.REFRESH if now_us < stored.usable_until_us else Reuse.VALIDATE
    if request.no_cache:
        return Reuse.VALIDATE
    if request.max_age is not None and stored.age_s(now_us) > request.max_age:
        return Reuse.VALIDATE
    if request.min_fresh is not None and left_us < request.min_fresh * US_PER_S:
        return Reuse.VALIDATE
    if left_us > 0:
        return Reuse.FRESH
    if not lifetimes.may_be_stale:
        return Reuse.VALIDATE
    if request.max_stale is not None:
        # The client has named its bound, which stale-while-revalidate does not widen.
        return Reuse.STALE if _is_within(request.max_stale, left_us) else Reuse.VALIDATE
    if request.max_age is None and now_us < stored.usable_until_us:
        return Reuse.REFRESH
    return Reuse.VALIDATE


def may_refresh(request: RequestDirectives | None) -> bool:
    """Whether the app may be asked behind this request's answer, to store what it says.

    Not for only-if-cached and no-store: their clients want nothing asked, or nothing stored.
    """
    return request is None or not (request.only_if_cached or request.no_store)


def may_serve_on_error(
    stored: StoredResponse, request: RequestDirectives | None, *, now_us: int
) -> bool:
    """Whether `stored` may stand in for a failed answer of the app.

    stale-if-error, the response's or the client's, permits it "regardless of other freshness
    information" (RFC 5861 §4): max-stale beside it does not narrow it.  Without one, what a soft
    purge has made stale may stand in, and then max-stale counts (RFC 9111 §5.2.1.2).
    """
    if not stored.lifetimes.may_be_stale:
        return False
    if request is not None and (
        request.no_cache
        or request.min_fresh is not None
        or (request.max_age is not None and stored.age_s(now_us) > request.max_age)
    ):
        return False  # the client has asked for something fresher than this
    if request is None:
        return now_us < stored.usable_if_error_us
    if request.stale_if_error is not None:
        until_us = stored.fresh_until_us + request.stale_if_error * US_PER_S
        if now_us < until_us:
            return True
    if request.max_stale is not None and not stored.lifetimes.stale_if_error_s:
        left_us = stored.fresh_until_us - now_us
        if not _is_within(request.max_stale, left_us):
            return False
    return now_us < stored.usable_if_error_us


def _is_within(max_stale_s: int, left_us: int) -> bool:
    """Whether what has been stale since `-left_us` is so for `max_stale_s` at most."""
    return -left_us <= max_stale_s * US_PER_S

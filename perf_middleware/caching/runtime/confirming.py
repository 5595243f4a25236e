"""What becomes of a stored response when the app has confirmed it (RFC 9111 §4.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.caching.judgement import Keep
from perf_middleware.caching.runtime.tracked import UNTRACKED
from perf_middleware.caching.stored import US_PER_S, Lifetimes
from perf_middleware.caching.syntax.dates import format_http_date
from perf_middleware.caching.validation import OF_THE_BODY, updated_headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.caching.fields import Lines
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.caching.stored import StoredResponse

OF_A_CACHE: Final = frozenset({b"age", b"cache-status"})
"""Fields that say what a cache did: of each answer anew."""


def confirmed(
    cache: ResponseCache,
    stored: StoredResponse,
    sent: Iterable[tuple[bytes, bytes]],
    lines: Lines,
    request: CacheRequest,
    *,
    purges_seen: int,
    begun: Begun | None = None,
) -> tuple[StoredResponse, bool]:
    """`stored` with the fields `sent` of an answer that confirms it, and whether it is to be kept.

    Not where the answer says that it may not be, or where another took its place, or a purge came,
    since purge number `purges_seen`; it is good for the one request then.  `begun` is what the app
    has read to confirm it.
    """
    now_us = cache.clock()
    wall_us = int(cache.wall_s() * US_PER_S)
    rule = request.rule
    # Its own age and date began with the old answer.
    own = {name: at for name, at in stored.lines.items() if name not in {b"age", b"date"}}
    own |= {name: at for name, at in lines.items() if name not in OF_THE_BODY}
    own.pop(b"connection", None)  # the confirming answer's: of that one's fields alone
    verdict: Keep | str = cache.judge.judge(
        stored.status,
        own,
        credentials=request.credentials,
        no_store=False,
        sent_us=request.sent_us,
        rule=rule,
        now_us=now_us,
        wall_us=wall_us,
    )
    dependencies = None
    if rule is not None and rule.tracked and isinstance(verdict, Keep):
        refused = cache.tracked.refusal(rule, begun, is_whole=True)
        if refused is not None or begun is None:
            verdict = refused or UNTRACKED
        else:
            purges_seen = begun[0].since(purges_seen)
            # The body was made of all that was read for it, whatever confirms it now.
            dependencies = tuple(sorted({*stored.dependencies, *begun[0].tags()}))
    newer = list(sent)
    if b"date" not in lines and any(name == b"date" for name, _ in stored.headers):
        newer.append((b"date", format_http_date(wall_us // US_PER_S)))
    is_newest = cache.store.holds(stored) and not cache.purges.since(
        purges_seen, stored.target, stored.tags + stored.tags_with(own, dependencies)
    )
    if not isinstance(verdict, Keep) or not set(verdict.vary).issubset(stored.vary):
        # Good for this one answer: the app has said so, and that it is the last.
        if is_newest:
            cache.let_go(stored)
        headers = updated_headers(stored.headers, newer, without=OF_A_CACHE)
        lifetimes = Lifetimes(fresh_s=0, may_be_stale=False, must_validate=True)
        return stored.confirmed(headers, own, lifetimes, initial_age_us=0, now_us=now_us), False
    merged = updated_headers(stored.headers, newer, without=verdict.without)
    renewed = stored.confirmed(
        verdict.headers(merged, None if rule is None else rule.tell_clients),
        own,
        verdict.lifetimes,
        initial_age_us=verdict.initial_age_us,
        now_us=now_us,
        dependencies=dependencies,
    )
    renewed.shares_authorization = verdict.shares_authorization
    return renewed, is_newest

"""What the head of an answer says: whether its body is to be kept, and what clients are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.cache_status import NO_FRESHNESS
from perf_middleware.caching.decorators import policy_of
from perf_middleware.caching.judgement import Keep
from perf_middleware.caching.runtime.request import personal
from perf_middleware.caching.storability import NEVER_STORED
from perf_middleware.caching.stored import US_PER_S
from perf_middleware.caching.validation import head_confirms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import Message
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.fields import Lines
    from perf_middleware.caching.figures import RouteCounts
    from perf_middleware.caching.known_heads import Known
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.caching.stored import StoredResponse

LENGTH_DIGITS_MAX: Final = 15


@dataclass(frozen=True, slots=True)
class Judged:
    """`keep` None: not kept, and `why` (None where the request alone is the reason)."""

    keep: Keep | None
    why: str | None = None
    tell_clients: bytes | None = None
    """Their Cache-Control in place of the app's."""
    now_us: int = 0
    """When the head came: the age counts from there."""


def known_head(
    cache: ResponseCache, request: CacheRequest, message: Message, sent: Sequence[Any]
) -> tuple[Known, list[bytes]] | None:
    """What is known of a head that is like one before; None where `judge_head` has to look."""
    rule, scope = request.rule, request.scope
    if (rule is None or rule.on_endpoint) and policy_of(scope) is not rule:
        return None
    if (
        request.credentials
        or request.directives is not None
        or "session" in scope
        or "user" in scope
        or "trailers" in message
        or request.is_head
    ):
        return None
    return cache.known_heads.of(message["status"], sent, rule)


def judge_head(
    cache: ResponseCache,
    request: CacheRequest,
    message: Message,
    sent: Sequence[tuple[bytes, bytes]],
    *,
    route: str,
    may_keep: bool,
    purges_seen: int,
    begun: Begun | None = None,
) -> Judged:
    """Every reason against keeping, in order; a rule on the endpoint is learnt on the way.

    `begun` is what has been read so far, where that is collected.
    """
    rule = request.rule
    if rule is None or rule.on_endpoint:
        own = policy_of(request.scope)
        if own is not rule:
            # Learnt from here on.  Another endpoint may have answered this path before: by host,
            # by method, or because the app changed its routes.
            cache.rules.learn(request.path, own, route)
            rule = request.rule = own
            # Its functions are for the request as it came; now the app has written into that.
            if (rule is not None and rule.has_functions) or not request.take_rule(rule):
                return Judged(None, "rule")
    if not may_keep:
        return Judged(None)
    if rule is not None and not request.key_holds():
        return Judged(None, "rule")
    whose = personal(request.scope)
    if whose is not None and not (rule is not None and rule.is_for_all_or_one):
        return Judged(None, whose)
    if rule is None and cache.judge.is_silent(sent) and not request.is_head:
        return Judged(None, NO_FRESHNESS)
    lines = cache.judge.collect(sent)
    now_us = cache.clock()
    verdict: Keep | str = cache.judge.judge(
        message["status"],
        lines,
        credentials=request.credentials,
        no_store=request.directives is not None and request.directives.no_store,
        sent_us=request.sent_us,
        rule=rule,
        now_us=now_us,
        wall_us=int(cache.wall_s() * US_PER_S),
    )
    # Clients are told of what may be for others, never of an error or of one client's own.
    tell_clients = rule.tell_clients if rule is not None and type(verdict) is Keep else None
    if request.is_head:
        seen_by_head(cache, request, message["status"], sent, lines, purges_seen=purges_seen)
        return Judged(None, "head", tell_clients)
    if type(verdict) is Keep:
        refused = no_room_for(cache, message, lines)
        if refused is None and rule is not None and rule.tracked:
            # What is only streamed, of unknown length, may be read on the way.
            is_whole = b"content-length" in lines
            refused = cache.tracked.refusal(rule, begun, is_whole=is_whole)
        if refused is None:
            return Judged(verdict, None, tell_clients, now_us)
        verdict = refused
    return Judged(None, str(verdict), tell_clients)


def counted(
    cache: ResponseCache,
    request: CacheRequest,
    root_path: str,
    reason: Forward,
    *,
    counted_as: str | None,
) -> tuple[str, RouteCounts]:
    """Count one call of the app, `counted_as` None one that no client waits for; its route."""
    scope = request.scope
    known = cache.templates.known.get(id(scope.get("route")))
    if known is None or "fastapi" in scope or (scope.get("root_path") or "") != root_path:
        route = cache.route_of(scope, root_path)
    else:
        route = known[1]
    if request.rewritten_from is not None and cache.name_route is not None:
        cache.name_route(route)  # the router wrote it into a scope of ours
    counts = cache.figures.by_route.get(route) or cache.figures.of(route)
    if counted_as is None:
        counts.refreshed += 1
    else:
        reasons = counts.bypassed if reason == "bypass" else counts.misses
        reasons[counted_as] = reasons.get(counted_as, 0) + 1
    return route, counts


def drop_replaced(
    cache: ResponseCache, request: CacheRequest, stored: StoredResponse | None, status: int
) -> None:
    """A whole answer shows that what was to be confirmed holds no more (RFC 9111 §4.3.3).

    Not one about the client: who has used up his quota could empty the store by it.
    """
    if stored is None or status >= 500 or status in request.spared or request.is_head:
        return
    if status in NEVER_STORED:
        return
    cache.let_go(stored)


def no_room_for(cache: ResponseCache, message: Message, lines: Lines) -> str | None:
    """Why an answer with this head, that may be stored, is only streamed; None where it is not."""
    if message.get("trailers"):
        return "trailers"  # what comes after the body would be lost
    length = lines.get(b"content-length")
    if length is not None:
        text = length[0].strip()
        if not text.isdigit() or len(text) > LENGTH_DIGITS_MAX or len(set(length)) > 1:
            return "content-length"
        if int(text) > cache.options.entry_bytes_max:
            return "too-large"
    if cache.storing_bytes >= cache.storing_bytes_max:
        return "busy"
    return None


def seen_by_head(
    cache: ResponseCache,
    request: CacheRequest,
    status: int,
    sent: Sequence[tuple[bytes, bytes]],
    lines: Lines,
    *,
    purges_seen: int,
) -> None:
    """A HEAD's 200 renews the stored GET response, or shows it to be another's (§4.3.5)."""
    directives = request.directives
    if status != 200 or request.credentials or (directives is not None and directives.no_store):
        return
    stored = cache.store.select(request.primary, request.lines)
    if stored is None or stored.status != 200:
        return
    if stored.dependencies:
        return  # what the app has read for its head is not what the body was made of
    described = head_confirms(stored, lines, now_s=int(cache.wall_s()))
    if described:
        cache.confirmed(stored, sent, lines, request, purges_seen=purges_seen)
    elif described is False:
        cache.let_go(stored)

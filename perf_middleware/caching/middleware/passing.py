"""The shortest way of a miss: an answer that says nothing of being stored is only passed on.

Most answers are like that.  What is not is handed over, with its first message, to a Forwarding,
which knows every case; so is a request whose client leaves while others wait for its answer.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

from perf_middleware.caching.cache_status import NO_FRESHNESS
from perf_middleware.caching.decorators import ATTRIBUTE, policy_of
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.runtime.request import CacheRequest, primary_key

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.caching.figures import RouteCounts
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.flights import Flight
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.caching.special import Special

    Opening: TypeAlias = tuple[
        Receive, bytes, bytes | None, Flight | None, str, int, int, str, bytes | None, bytes,
        list[tuple[bytes, bytes]], Begun | None,
    ]  # fmt: skip


async def pass_on(
    app: ASGIApp,
    cache: ResponseCache,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    host: bytes,
    key: bytes | None,
    special: Special | None = None,
    rule: CachePolicy | None = None,
    flight: Flight | None = None,
) -> Any:
    """Call the app for a GET without a rule, of whose URL nothing is stored.

    Or for one that is passed by for its credentials: those in `special`, where `rule` keeps them
    out, if there is one; `key` may be None then.
    """
    # Closures and not an object, and few variables in them: what a request that is only passed on
    # pays for is these.  What only a Forwarding needs stands in one tuple, as it is now: before
    # the app has read its data, before it was routed, before a layer below rewrites the request.
    root_path = scope.get("root_path") or ""
    tracked = cache.tracked
    begun = None if tracked.current is None else tracked.begin(rule)
    opening = (
        receive, host, key, flight, root_path, cache.clock(), cache.purges.newest,
        scope["path"], scope.get("raw_path"), scope.get("query_string", b""),
        scope["headers"].copy(), begun,
    )  # fmt: skip
    whole: Forwarding | None = None
    passed = False

    def sending(message: Message) -> Awaitable[None]:
        nonlocal passed, whole
        if passed:
            return send(message)
        if whole is not None:
            return whole.send(message)
        if message["type"] != "http.response.start":
            return send(message)
        refused = _refused(cache, scope, message, special, rule)
        if refused is None:
            whole = _handed_over(cache, scope, send, special, rule, opening)
            return whole.send(message)
        passed = True
        counts = _counts_of(cache, scope, root_path)
        if special is None:
            counts.silent += 1
            if flight is not None:
                cache.note_unstorable(flight.key, NO_FRESHNESS)
                cache.flights.land(flight, "unstorable")
        else:
            counts.refused[refused] = counts.refused.get(refused, 0) + 1
            counts.bypassed["credentials"] = counts.bypassed.get("credentials", 0) + 1
        status = cache.shown_status
        if status is None:
            return send(message)
        if special is None:
            field = status.silent_miss
        else:
            field = special.bypass_field(status, None if rule is None else rule.name)
        told = dict(message)
        told["headers"] = [*message["headers"], field]
        return send(told)

    async def receiving() -> Message:
        nonlocal whole
        message = await receive()
        if passed:
            return message
        left = message["type"] == "http.disconnect"
        if left or message.get("body") or message.get("more_body"):
            if whole is None:
                whole = _handed_over(cache, scope, send, special, rule, opening)
            if left:
                return await whole.left_by_client(message)
            whole.saw_body()
        return message

    failed = False
    try:
        return await app(scope, receiving, sending)
    except Exception:
        failed = True
        raise
    finally:
        if begun is not None:
            tracked.end(begun)
        if not passed:
            if whole is None:
                whole = _handed_over(cache, scope, send, special, rule, opening)
            whole.failed = whole.failed or failed
            whole.end()


def _refused(
    cache: ResponseCache,
    scope: Scope,
    message: Message,
    special: Special | None,
    rule: CachePolicy | None,
) -> str | None:
    """Why an answer with this head is only passed on; None where that takes a closer look."""
    sent = message.get("headers")
    if type(sent) is not list or message["status"] < 200:
        return None
    if rule is None or rule.on_endpoint:
        endpoint = scope.get("endpoint")
        # A function carries its rule itself; of a class, one of its methods may.
        is_function = type(endpoint) is FunctionType
        own = getattr(endpoint, ATTRIBUTE, None) if is_function else policy_of(scope)
        if own is not rule:
            return None
    if rule is None and cache.judge.is_silent(sent):
        return NO_FRESHNESS
    if special is None or cache.judge.may_cover_credentials(dict(sent)):
        return None
    return "credentials"


def _counts_of(cache: ResponseCache, scope: Scope, root_path: str) -> RouteCounts:
    known = cache.templates.known.get(id(scope.get("route")))
    if known is None or "fastapi" in scope or scope.get("root_path") != root_path:
        route = cache.route_of(scope, root_path)
    else:
        route = known[1]
    return cache.figures.by_route.get(route) or cache.figures.of(route)


def _handed_over(
    cache: ResponseCache,
    scope: Scope,
    send: Send,
    special: Special | None,
    rule: CachePolicy | None,
    opening: Opening,
) -> Forwarding:
    """The Forwarding of a request that was opened so."""
    (receive, host, key, flight, root_path, sent_us, purges_seen, *target, headers, begun) = opening
    came = dict(scope)
    came["root_path"] = root_path
    came["path"], came["raw_path"], came["query_string"] = target
    came["headers"] = headers
    if key is None:
        key = primary_key(came, host)
    request = CacheRequest(
        scope, receive, send,
        host=host, primary=key, rule=rule, ignored_cookies=cache.special.ignored_cookies,
        came=came,
    )  # fmt: skip
    request.sent_us = sent_us
    if special is not None:
        request.take_special(special, with_directives=False)
    whole = Forwarding(
        cache,
        request,
        "uri-miss" if special is None else "bypass",
        flight=flight,
        detail=None if special is None else special.reason,
        counted_as="" if special is None else "credentials",
    )
    whole.purges_seen, whole.root_path, whole.begun = purges_seen, root_path, begun
    return whole

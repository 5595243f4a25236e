"""The shortest way of a miss: an answer that says nothing of being stored is only passed on.

Most answers are like that.  What is not is handed over, with its first message, to a Forwarding,
which knows every case; so is a request whose client leaves while others wait for its answer.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

from perf_middleware.caching.decorators import ATTRIBUTE, policy_of
from perf_middleware.caching.judgement import NO_FRESHNESS
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.middleware.request import CacheRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.flights import Flight
    from perf_middleware.caching.special import Special


async def pass_on(
    app: ASGIApp,
    cache: ResponseCache,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    host: bytes,
    key: bytes,
    reason: Forward,
    special: Special | None = None,
    rule: CachePolicy | None = None,
    flight: Flight | None = None,
) -> Any:
    """Call the app for a GET without a rule, of which nothing is stored.

    Or for one that is passed by for its credentials: those in `special`, where `rule` keeps them
    out, if there is one.
    """
    # Closures and not an object: what a request that is only passed on pays for is two of them.
    root_path = scope.get("root_path") or ""
    sent_us = cache.clock()
    purges_seen = cache.purges.newest
    is_silent = cache.judge.is_silent
    templates = cache.templates
    # All that decides later and that a layer below may rewrite in place.
    frozen = (
        scope["path"], scope.get("raw_path"), scope.get("query_string", b""),
        scope["headers"].copy(),
    )  # fmt: skip
    whole: Forwarding | None = None
    passed = False

    def hand_over() -> Forwarding:
        nonlocal whole
        came = dict(scope)
        came["root_path"] = root_path
        came["path"], came["raw_path"], came["query_string"], came["headers"] = frozen
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
            reason,
            flight=flight,
            detail=None if special is None else special.reason,
            counted_as="" if special is None else "credentials",
        )
        # As they were when the app was called: before it read its data, before it was routed.
        whole.purges_seen, whole.root_path = purges_seen, root_path
        return whole

    def sending(message: Message) -> Awaitable[None]:
        nonlocal passed
        if whole is not None:
            return whole.send(message)
        if passed or message["type"] != "http.response.start":
            return send(message)
        sent = message.get("headers")
        if type(sent) is not list or message["status"] < 200:
            return hand_over().send(message)
        if rule is None or rule.on_endpoint:
            endpoint = scope.get("endpoint")
            # A function carries its rule itself; of a class, one of its methods may.
            is_function = type(endpoint) is FunctionType
            own = getattr(endpoint, ATTRIBUTE, None) if is_function else policy_of(scope)
            if own is not rule:
                return hand_over().send(message)
        fields = dict(sent)
        refused = NO_FRESHNESS
        if rule is not None or not is_silent(fields):
            if special is None or cache.judge.may_cover_credentials(fields):
                return hand_over().send(message)
            refused = "credentials"
        passed = True
        known = templates.known.get(id(scope.get("route")))
        if known is None or "fastapi" in scope or scope.get("root_path") != root_path:
            route = cache.route_of(scope, root_path)
        else:
            route = known[1]
        counts = cache.figures.by_route.get(route) or cache.figures.of(route)
        if special is None:
            counts.misses[reason] = counts.misses.get(reason, 0) + 1
        else:
            counts.bypassed["credentials"] = counts.bypassed.get("credentials", 0) + 1
        counts.refused[refused] = counts.refused.get(refused, 0) + 1
        if flight is not None:
            cache.note_unstorable(key, NO_FRESHNESS)
            cache.flights.land(flight, "unstorable")
        status = cache.shown_status
        if status is None:
            return send(message)
        if special is None:
            detail = NO_FRESHNESS
        else:
            detail = special.reason if rule is None else special.reason_under(rule.name)
        told = dict(message)
        told["headers"] = [*sent, status.forwarded(reason, stored=False, detail=detail)]
        return send(told)

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect" and not passed:
            return await (whole or hand_over()).left_by_client(message)
        if (message.get("body") or message.get("more_body")) and not passed:
            (whole or hand_over()).saw_body()
        return message

    failed = False
    try:
        return await app(scope, receiving, sending)
    except Exception:
        failed = True
        raise
    finally:
        if not passed:
            whole = whole or hand_over()
            whole.failed = whole.failed or failed
            whole.end()

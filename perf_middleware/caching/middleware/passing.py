"""The shortest way of a miss: an answer that says nothing of being stored is only passed on.

Most answers are like that.  What is not is handed over, with its first message, to a Forwarding,
which knows every case; so is a request whose client leaves while others wait for its answer.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

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
    from perf_middleware.caching.special import Special


class Passing:
    """A GET without a rule, of whose URL nothing is stored, on its way to the app.

    Or one that is passed by for its credentials: those in `special`, where `rule` keeps them out,
    if there is one; `key` may be None then.

    Most requests are one of these.  It keeps what only a Forwarding needs as it is now: before the
    app has read its data, before it was routed, before a layer below rewrites the request.
    """

    __slots__ = (
        "_begun", "_cache", "_flight", "_headers", "_host", "_key", "_passed", "_path",
        "_purges_seen", "_query", "_raw_path", "_receive", "_root_path", "_rule", "_scope",
        "_send", "_sent_us", "_special", "_whole",
    )  # fmt: skip

    def __init__(
        self,
        cache: ResponseCache,
        scope: Scope,
        receive: Receive,
        send: Send,
        host: bytes,
        key: bytes | None,
        special: Special | None = None,
        rule: CachePolicy | None = None,
        flight: Flight | None = None,
    ) -> None:
        self._cache = cache
        self._scope = scope
        self._receive = receive
        self._send = send
        self._host = host
        self._key = key
        self._special = special
        self._rule = rule
        self._flight = flight
        self._path = scope["path"]
        self._raw_path = scope.get("raw_path")
        self._query = scope.get("query_string", b"")
        self._root_path = scope.get("root_path") or ""
        self._headers = scope["headers"].copy()
        self._purges_seen = cache.purges.newest
        self._passed = False
        self._whole: Forwarding | None = None

    async def run(self, app: ASGIApp) -> Any:
        """Call the app."""
        cache = self._cache
        tracked = cache.tracked
        self._begun = begun = None if tracked.current is None else tracked.begin(self._rule)
        self._sent_us = cache.clock()
        failed = False
        try:
            return await app(self._scope, self.receive, self.send)
        except Exception:
            failed = True
            raise
        finally:
            if begun is not None:
                tracked.end(begun)
            if not self._passed:
                whole = self._whole or self._hand_over()
                whole.failed = whole.failed or failed
                whole.end()

    def send(self, message: Message) -> Awaitable[None]:
        """What the app sends; its head decides whether all of it is only passed on."""
        if self._passed:
            return self._send(message)
        if self._whole is not None:
            return self._whole.send(message)
        if message["type"] != "http.response.start":
            return self._send(message)
        special, rule = self._special, self._rule
        refused = self._refused(message)
        if refused is None:
            return self._hand_over().send(message)
        self._passed = True
        cache = self._cache
        counts = self._counts()
        if special is None:
            counts.silent += 1
            flight = self._flight
            if flight is not None:
                cache.note_unstorable(flight.key, NO_FRESHNESS)
                cache.flights.land(flight, "unstorable")
        else:
            counts.refused[refused] = counts.refused.get(refused, 0) + 1
            counts.bypassed["credentials"] = counts.bypassed.get("credentials", 0) + 1
        status = cache.shown_status
        if status is None:
            return self._send(message)
        if special is None:
            field = status.silent_miss
        else:
            field = special.bypass_field(status, None if rule is None else rule.name)
        return self._send({**message, "headers": [*message["headers"], field]})

    async def receive(self) -> Message:
        """What the client sends: a body, or that it has left, is a Forwarding's."""
        message = await self._receive()
        if self._passed:
            return message
        left = message["type"] == "http.disconnect"
        if left or message.get("body") or message.get("more_body"):
            whole = self._whole or self._hand_over()
            if left:
                return await whole.left_by_client(message)
            whole.saw_body()
        return message

    def _refused(self, message: Message) -> str | None:
        """Why an answer with this head is only passed on; None where that takes a closer look."""
        sent = message.get("headers")
        if type(sent) is not list or message["status"] < 200:
            return None
        rule = self._rule
        if rule is None or rule.on_endpoint:
            endpoint = self._scope.get("endpoint")
            # A function carries its rule itself; of a class, one of its methods may.
            is_function = type(endpoint) is FunctionType
            own = getattr(endpoint, ATTRIBUTE, None) if is_function else policy_of(self._scope)
            if own is not rule:
                return None
        if rule is None and self._cache.judge.is_silent(sent):
            return NO_FRESHNESS
        try:
            if self._special is None or self._cache.judge.may_cover_credentials(dict(sent)):
                return None
        except TypeError:  # a name that is a buffer
            return None
        return "credentials"

    def _counts(self) -> RouteCounts:
        cache, scope = self._cache, self._scope
        known = cache.templates.known.get(id(scope.get("route")))
        if known is None or "fastapi" in scope or scope.get("root_path") != self._root_path:
            route = cache.route_of(scope, self._root_path)
        else:
            route = known[1]
        return cache.figures.by_route.get(route) or cache.figures.of(route)

    def _hand_over(self) -> Forwarding:
        """To what knows every case, with everything as it was when the request came."""
        cache, scope, special, key = self._cache, self._scope, self._special, self._key
        came = dict(scope)
        came["root_path"], came["path"], came["headers"] = (
            self._root_path, self._path, self._headers,
        )  # fmt: skip
        came["raw_path"], came["query_string"] = self._raw_path, self._query
        if key is None:
            key = primary_key(came, self._host)
        request = CacheRequest(
            scope, self._receive, self._send,
            host=self._host, primary=key, rule=self._rule,
            ignored_cookies=cache.special.ignored_cookies, came=came,
        )  # fmt: skip
        request.sent_us = self._sent_us
        if special is not None:
            request.take_special(special, with_directives=False)
        self._whole = whole = Forwarding(
            cache,
            request,
            "uri-miss" if special is None else "bypass",
            flight=self._flight,
            detail=None if special is None else special.reason,
            counted_as="" if special is None else "credentials",
        )
        whole.purges_seen = self._purges_seen
        whole.root_path, whole.begun = self._root_path, self._begun
        return whole

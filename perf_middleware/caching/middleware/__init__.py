"""The response cache as a layer: hits from memory, misses to the app, writes invalidate.

A hit sends messages that were prepared when the response was stored.  Everything that takes more
than a look-up (conditions, ranges, credentials, directives, rules with keys of their own) goes the
longer way of `_considered`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import Around, app_path, header_pairs
from perf_middleware.caching.invalidation import SAFE_METHODS, invalidates
from perf_middleware.caching.judgement import credentials_reason
from perf_middleware.caching.middleware.answers import (
    forms_for,
    send_plain,
    send_whole,
    tell_choice,
)
from perf_middleware.caching.middleware.missing import miss
from perf_middleware.caching.middleware.outcomes import bypass, hit, only_if_cached, select
from perf_middleware.caching.middleware.passing import Passing
from perf_middleware.caching.middleware.revalidation import refresh
from perf_middleware.caching.middleware.warming import warm
from perf_middleware.caching.reuse import Reuse, decide_reuse, may_refresh
from perf_middleware.caching.runtime.request import (
    CacheRequest,
    as_it_came,
    personal,
    primary_key,
)
from perf_middleware.caching.runtime.tracked import LEASE
from perf_middleware.caching.runtime.writes import Written, invalidate_for_all, written
from perf_middleware.caching.settings import CacheSettings
from perf_middleware.caching.special import NO_HOST
from perf_middleware.caching.stored import StoredResponse
from perf_middleware.caching.variants import Variants
from perf_middleware.caching.warming.asked import WARMING
from perf_middleware.coded_forms import WANTED
from perf_middleware.errors import SettingsError
from perf_middleware.fleet.settings import RedisSettings
from perf_middleware.standing_alone import section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.fleet.runtime import Fleet

LOOKED_UP: Final = frozenset({"GET", "HEAD"})
_NAME: Final = itemgetter(0)
OF_INSTALL: Final = frozenset({"enabled", "position"})  # whether and where a layer stands


class CacheLayer(Around):
    """The response cache `cache` around `app`, as install stands it in the stack.

    A call makes no coroutine of its own, each way through it returns the one that it needs.
    """

    def __init__(self, app: ASGIApp, cache: ResponseCache) -> None:
        self.app = app
        self.cache = cache
        self._get = cache.store.get
        self._clock = cache.clock
        self._special = cache.special
        self._tracked = cache.tracked
        self._known_special = cache.special.known
        self._known_rules = cache.rules.known
        self._ignored_cookies = cache.special.ignored_cookies
        self._obeys_directives = cache.options.request_directives
        self._by_rfc = cache.options.authorization_by_rfc

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        if scope["type"] != "http":
            return self.below(scope, receive, send)
        method = scope["method"]
        if method not in LOOKED_UP:
            if method in SAFE_METHODS:
                return self.below(scope, receive, send)
            return self._invalidating(scope, receive, send)
        headers = scope["headers"]
        if type(headers) is not list:
            headers = scope["headers"] = header_pairs(headers)
        try:
            special, host_at = self._known_special[tuple(map(_NAME, headers))]
        except KeyError:
            special, host_at = self._special.of(headers)
        if host_at >= 0:
            host = headers[host_at][1]
        elif host_at == NO_HOST:
            host = b""
        else:
            # Who it is for depends on who reads it (RFC 9112 §3.2).
            request = CacheRequest(
                scope, receive, send,
                host=b"", primary=b"", rule=None, ignored_cookies=None,
            )  # fmt: skip
            return bypass(self.below, self.cache, request, "host", may_keep=False)
        cache = self.cache
        rule = None
        if cache.rules.has_any:
            path = app_path(scope) if scope.get("root_path") else scope["path"]
            try:
                rule = self._known_rules[path]
            except KeyError:
                rule = cache.rules.rule_for(path)
        if (
            special is not None
            and special.is_simple
            and method == "GET"
            and (rule is None or rule.says_nothing_of_clients)
            and not self._by_rfc
            and not cache.store.is_varied(scope.get("raw_path"))
        ):
            passing = Passing(cache, scope, receive, send, host, b"", rule, False, special)
            return passing.run(self.below)
        key = primary_key(scope, host)
        stored = self._get(key)
        if (
            special is None
            and "session" not in scope
            and "user" not in scope
            and (rule is None or not rule.needs_request)
        ):
            if type(stored) is StoredResponse:
                now_us = self._clock()
                if now_us < stored.early_from_us and not (
                    stored.dependencies and self._tracked.is_over(now_us)
                ):
                    stored.hits += 1
                    counts = stored.counts
                    counts.hits += 1
                    if cache.name_route is not None:
                        cache.name_route(stored.route)
                    if cache.hit_hooks:
                        cache.tell("hit", stored)
                    if cache.note_part is not None:
                        cache.note_part("cache", self._clock() - now_us)
                    if now_us < stored.shown_until_us:
                        tail = stored.tail
                    else:
                        tail = stored.show(now_us, cache.shown_status)
                    if method != "GET":
                        tell_choice(cache, scope, stored)
                        return send_whole(send, stored, tail, head=True)
                    counts.hit_bytes += len(stored.body)
                    if stored.choice is None and WANTED not in scope:
                        return send_plain(send, stored, tail)
                    tell_choice(cache, scope, stored)
                    forms = forms_for(cache, scope, stored)
                    return send_whole(send, stored, tail, head=False, forms=forms)
            elif stored is None:
                is_unstorable = hash(key) in cache.unstorable
                if method == "GET" and (cache.shared is None or is_unstorable):
                    leads = not is_unstorable and cache.options.collapse
                    if not leads or key not in cache.flights.open:
                        # By place: to call a class with names packs them into a dict.
                        passing = Passing(cache, scope, receive, send, host, key, rule, leads)
                        return passing.run(self.below)
                request = CacheRequest(scope, receive, send, host, key, rule, self._ignored_cookies)
                return miss(self.below, cache, request, "uri-miss")
        request = CacheRequest(
            scope, receive, send,
            host=host, primary=key, rule=rule, ignored_cookies=self._ignored_cookies,
        )  # fmt: skip
        if special is not None:
            request.take_special(special, with_directives=self._obeys_directives)
            if WARMING in scope:  # it has a Cache-Control: hits and misses pay for no look at this
                return warm(self.below, cache, request, scope[WARMING])
            if special.is_out:
                return bypass(self.below, cache, request, "precondition", may_keep=False)
            if (
                special.credentials
                and rule is None
                and type(stored) is not Variants
                and not self._by_rfc
            ):
                return bypass(self.below, cache, request, special.reason)
        return self._considered(request)

    async def _considered(self, request: CacheRequest) -> Any:
        """Every case, in the order in which they rule each other out."""
        cache = self.cache
        request.freeze()
        directives = request.directives
        rule = request.rule
        if rule is not None and not request.take_rule(rule):
            return await bypass(self.below, cache, request, "rule", may_keep=False)
        whose = personal(request.scope)
        if whose is not None and not (rule is not None and rule.is_for_all_or_one):
            return await bypass(self.below, cache, request, whose)
        stored, reason = select(cache, request)
        credentials = request.credentials
        if stored is not None:
            is_safe = stored.is_safe_for(credentials)
        else:
            is_safe = not credentials or (rule is not None and rule.covers(credentials))
        if not is_safe:
            return await bypass(self.below, cache, request, credentials_reason(credentials))
        if stored is None:
            if request.wants_only_stored:
                return await only_if_cached(cache, request, reason)
            return await miss(self.below, cache, request, reason)
        if cache.tracked.may_not_use(stored):
            cache.tracked.lease_over += 1
            return await bypass(self.below, cache, request, LEASE)
        now_us = self._clock()
        verdict = decide_reuse(stored, directives, now_us=now_us)
        if verdict is Reuse.FRESH or verdict is Reuse.STALE or verdict is Reuse.REFRESH:
            await hit(cache, request, stored, now_us, stale=verdict is not Reuse.FRESH)
            if may_refresh(directives) and (
                verdict is Reuse.REFRESH
                or (verdict is Reuse.FRESH and cache.is_due_early(stored, now_us))
            ):
                await refresh(cache, self.below, request, stored)
            return None
        if request.wants_only_stored:
            return await only_if_cached(cache, request, "stale")
        asked = directives is not None and now_us < stored.fresh_until_us
        if directives is not None and directives.no_store:
            # What confirms the stored response would be kept beyond this request.
            return await miss(self.below, cache, request, "request" if asked else "stale")
        return await miss(self.below, cache, request, "request" if asked else "stale", stored)

    async def _invalidating(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Invalidate before the client hears of success, and again when all is done (§4.4).

        What ends after the answer (FastAPI's `yield` dependencies, background tasks) may commit the
        write only then; who asked meanwhile has got, and stored, what was there before.
        """
        cache = self.cache
        came = as_it_came(scope)
        tracked = cache.tracked
        answered: list[tuple[bytes, bytes]] | None = None

        def sending(message: Message) -> Awaitable[None]:
            nonlocal answered
            if message["type"] == "http.response.start" and invalidates(
                came["method"], message["status"]
            ):
                answered = list(message.get("headers", ()))  # an iterator can be read once
                message = {**message, "headers": answered}
                what = written(cache, came, answered)
                if cache.shared is not None:
                    return _send_when_told(cache, what, message, send)
            if message["type"] == "http.response.start" and not tracked.is_settled():
                return _send_when_told(cache, None, message, send)
            return send(message)

        try:
            return await self.below(scope, receive, sending)
        finally:
            if answered is not None:
                await invalidate_for_all(cache, written(cache, came, answered))


class ResponseCacheMiddleware(CacheLayer):
    """Answers GET and HEAD from stored responses, as a shared cache may (RFC 9111).

    Stands alone: `settings` are the fields of CacheSettings (`default_ttl=60`,
    `rules=[CacheRule(path="/items/*", ttl=60)]`).  `cache`, given instead of them, is one that
    exists: the app's code then purges that one.  `redis`, a URL or the fields of RedisSettings,
    shares what is stored with other processes.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: ResponseCache | None = None,
        *,
        redis: str | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if cache is None:
            for name in OF_INSTALL & settings.keys():
                raise SettingsError(
                    (f"ResponseCacheMiddleware({name}=…): only install can do that",)
                )
            made = section_of(CacheSettings, settings, call="ResponseCacheMiddleware")
            cache = made.make_cache()
        elif settings:
            raise TypeError(f"a cache has its settings: it takes no {', '.join(settings)}")
        super().__init__(app, cache)
        self._own_fleet: Fleet | None = None
        if redis is not None:
            given = {"url": redis} if isinstance(redis, str) else redis
            shared = section_of(RedisSettings, given, call="ResponseCacheMiddleware(redis=…)")
            self._own_fleet = shared.make_fleet()
            if self._own_fleet is not None:
                cache.share(self._own_fleet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        # A coroutine function: servers tell ASGI 3 from ASGI 2 by that.
        if scope["type"] == "lifespan" and self._own_fleet is not None:
            return await self._until_shutdown(self._own_fleet, scope, receive, send)
        return await CacheLayer.__call__(self, scope, receive, send)

    async def _until_shutdown(
        self, fleet: Fleet, scope: Scope, receive: Receive, send: Send
    ) -> Any:
        """It connects with the first look-up, and is closed here."""
        try:
            return await self.below(scope, receive, send)
        finally:
            await fleet.close()


async def _send_when_told(
    cache: ResponseCache, what: Written | None, message: Message, send: Send
) -> None:
    if what is not None:
        await invalidate_for_all(cache, what)
    if cache.tracked.settle is not None:
        await cache.tracked.settle()
    await send(message)

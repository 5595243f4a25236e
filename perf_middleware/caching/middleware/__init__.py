"""The response cache as a layer: hits from memory, misses to the app, writes invalidate.

A hit sends messages that were prepared when the response was stored.  Everything that takes more
than a look-up (conditions, ranges, credentials, directives, rules with keys of their own) goes the
longer way of `_considered`.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import anyio

from perf_middleware.asgi import app_path
from perf_middleware.caching.decorators import policy_of
from perf_middleware.caching.invalidation import SAFE_METHODS, invalidates
from perf_middleware.caching.judgement import credentials_reason
from perf_middleware.caching.middleware.answers import answer, send_gateway_timeout, send_whole
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.middleware.passing import pass_on
from perf_middleware.caching.middleware.revalidation import refresh, validation_of
from perf_middleware.caching.reuse import Reuse, decide_reuse, may_refresh, may_serve_on_error
from perf_middleware.caching.runtime.flights import ATTEMPTS_MAX, Flight
from perf_middleware.caching.runtime.request import (
    CacheRequest,
    as_it_came,
    personal,
    primary_key,
)
from perf_middleware.caching.runtime.writes import written
from perf_middleware.caching.settings import CacheSettings
from perf_middleware.caching.stored import StoredResponse
from perf_middleware.caching.variants import Variants
from perf_middleware.errors import SettingsError
from perf_middleware.layer_meter import METER, OUTSIDE
from perf_middleware.standing_alone import section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.special import Special

LOOKED_UP: Final = frozenset({"GET", "HEAD"})
UNPROVEN_WAIT_S: Final = 1.0
"""For the answer of a route that has given none as yet: it may be a report that is never stored."""
OF_INSTALL: Final = frozenset({"enabled", "position"})  # whether and where a layer stands


class ResponseCacheMiddleware:
    """Answers GET and HEAD from stored responses, as a shared cache may (RFC 9111).

    Stands alone: `settings` are the fields of CacheSettings (`default_ttl=60`,
    `rules=[CacheRule(path="/items/*", ttl=60)]`).  `cache`, given instead of them, is one that
    exists: the app's code then purges that one.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(self, app: ASGIApp, cache: ResponseCache | None = None, **settings: Any) -> None:
        if cache is None:
            for name in OF_INSTALL & settings.keys():
                raise SettingsError(
                    (f"ResponseCacheMiddleware({name}=…): only install can do that",)
                )
            made = section_of(CacheSettings, settings, call="ResponseCacheMiddleware")
            cache = made.make_cache()
        elif settings:
            raise TypeError(f"a cache has its settings: it takes no {', '.join(settings)}")
        self.app = app
        self.cache = cache
        self._get = cache.store.get
        self._clock = cache.clock
        self._special = cache.special
        self._known_special = cache.special.known
        self._ignored_cookies = cache.special.ignored_cookies
        self._obeys_directives = cache.options.request_directives
        self._by_rfc = cache.options.authorization_by_rfc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method = scope["method"]
        if method not in LOOKED_UP:
            if method in SAFE_METHODS:
                return await self.app(scope, receive, send)
            return await self._invalidating(scope, receive, send)
        headers = scope["headers"]
        if type(headers) is not list:
            headers = scope["headers"] = list(headers)  # an iterator can be read once
        fields = dict(headers)
        if len(fields) != len(headers) and _hosts(headers) > 1:
            # Who it is for depends on who reads it (RFC 9112 §3.2).
            request = CacheRequest(
                scope, receive, send,
                host=b"", primary=b"", rule=None, ignored_cookies=None,
            )  # fmt: skip
            return await self._bypass(request, "host", may_keep=False)
        host = fields.get(b"host", b"")
        cache = self.cache
        rule = None
        if cache.rules.has_any:
            below_root = scope.get("root_path")
            rule = cache.rules.rule_for(app_path(scope) if below_root else scope["path"])
        special: Special | None
        try:
            special = self._known_special[tuple(fields)]
        except KeyError:
            special = self._special.of(fields, headers)
        if (
            special is not None
            and special.is_simple
            and method == "GET"
            and (rule is None or rule.says_nothing_of_clients)
            and not self._by_rfc
            and not cache.store.is_varied(scope.get("raw_path"))
        ):
            return await pass_on(
                self.app, cache, scope, receive, send,
                host=host, key=None, reason="bypass", special=special, rule=rule,
            )  # fmt: skip
        key = primary_key(scope, host)
        stored = self._get(key)
        is_plain = special is None and not ("session" in scope or "user" in scope)
        if is_plain and (rule is None or not rule.needs_request):
            if type(stored) is StoredResponse:
                now_us = self._clock()
                if now_us < stored.early_from_us:
                    stored.hits += 1
                    counts = stored.counts
                    counts.hits += 1
                    if method == "GET":
                        counts.hit_bytes += len(stored.body)
                    if cache.name_route is not None:
                        cache.name_route(stored.route)
                    if cache.hit_hooks:
                        cache.tell("hit", stored)
                    if cache.note_part is not None:
                        cache.note_part("cache", self._clock() - now_us)
                    tail = stored.show(now_us, cache.shown_status)
                    return await send_whole(send, stored, tail, head=method == "HEAD")
            elif stored is None:
                if rule is None and method == "GET":
                    if hash(key) in cache.unstorable or not cache.options.collapse:
                        flight = None
                        leads = True
                    else:
                        flight = cache.flights.lead(key, scope)
                        leads = flight is not None
                    if leads:
                        return await pass_on(
                            self.app, cache, scope, receive, send,
                            host=host, key=key, reason="uri-miss", flight=flight,
                        )  # fmt: skip
                request = CacheRequest(
                    scope, receive, send,
                    host=host, primary=key, rule=rule, ignored_cookies=self._ignored_cookies,
                )  # fmt: skip
                return await self._miss(request, "uri-miss")
        request = CacheRequest(
            scope, receive, send,
            host=host, primary=key, rule=rule, ignored_cookies=self._ignored_cookies,
        )  # fmt: skip
        if special is not None:
            request.take_special(special, with_directives=self._obeys_directives)
            if special.is_out:
                return await self._bypass(request, "precondition", may_keep=False)
            if (
                special.credentials
                and rule is None
                and type(stored) is not Variants
                and not self._by_rfc
            ):
                return await self._bypass(request, special.reason)
        return await self._considered(request)

    async def _considered(self, request: CacheRequest) -> Any:
        """Every case, in the order in which they rule each other out."""
        cache = self.cache
        directives = request.directives
        rule = request.rule
        if rule is not None and not request.take_rule(rule):
            return await self._bypass(request, "rule", may_keep=False)
        whose = personal(request.scope)
        if whose is not None and not (rule is not None and rule.is_for_all_or_one):
            return await self._bypass(request, whose)
        stored, reason = self._select(request)
        credentials = request.credentials
        if stored is not None:
            is_safe = stored.is_safe_for(credentials)
        else:
            is_safe = not credentials or (rule is not None and rule.covers(credentials))
        if not is_safe:
            return await self._bypass(request, credentials_reason(credentials))
        if stored is None:
            if request.wants_only_stored:
                return await self._only_if_cached(request, reason)
            return await self._miss(request, reason)
        now_us = self._clock()
        verdict = decide_reuse(stored, directives, now_us=now_us)
        if verdict is Reuse.FRESH or verdict is Reuse.STALE or verdict is Reuse.REFRESH:
            await self._hit(request, stored, now_us, stale=verdict is not Reuse.FRESH)
            if may_refresh(directives) and (
                verdict is Reuse.REFRESH
                or (verdict is Reuse.FRESH and cache.is_due_early(stored, now_us))
            ):
                await refresh(cache, self.app, request, stored)
            return None
        if request.wants_only_stored:
            return await self._only_if_cached(request, "stale")
        asked = directives is not None and now_us < stored.fresh_until_us
        if directives is not None and directives.no_store:
            # What confirms the stored response would be kept beyond this request.
            return await self._miss(request, "request" if asked else "stale")
        return await self._miss(request, "request" if asked else "stale", stored)

    def _select(self, request: CacheRequest) -> tuple[StoredResponse | None, Forward]:
        """What is stored for this request, or which kind of miss it is."""
        found = self._get(request.primary)
        if found is None:
            return None, "uri-miss"
        if type(found) is Variants:
            key = found.key_for(request.lines)
            if key is None:
                return None, "vary-miss"
            request.key = key
            found = self._get(key)
        if type(found) is StoredResponse:
            return found, "miss"
        return None, "vary-miss"

    async def _hit(
        self, request: CacheRequest, stored: StoredResponse, now_us: int, *, stale: bool
    ) -> None:
        cache = self.cache
        stored.hits += 1
        counts = stored.counts
        counts.hits += 1
        counts.stale_hits += stale
        if cache.name_route is not None:
            cache.name_route(stored.route)
        if cache.hit_hooks:
            cache.tell("hit", stored)
        if cache.note_part is not None:
            cache.note_part("cache", self._clock() - now_us)
        tail = stored.show(now_us, cache.shown_status)
        counts.hit_bytes += await answer(request, stored, tail, wall_s=int(cache.wall_s()))

    async def _bypass(self, request: CacheRequest, why: str, *, may_keep: bool = True) -> Any:
        if request.wants_only_stored:
            return await self._only_if_cached(request, "bypass")
        forwarding = Forwarding(
            self.cache,
            request,
            "bypass",
            detail=why,
            may_keep=may_keep,
            counted_as=why.partition(":")[0],
        )
        return await forwarding.run(self.app)

    async def _only_if_cached(self, request: CacheRequest, reason: Forward) -> None:
        cache = self.cache
        misses = cache.figures.of("unmatched").misses
        misses["only-if-cached"] = misses.get("only-if-cached", 0) + 1
        tail = []
        if cache.shown_status is not None:
            tail.append((b"cache-status", cache.shown_status.unasked("only-if-cached")))
        await send_gateway_timeout(request.send, tail)

    async def _miss(
        self, request: CacheRequest, reason: Forward, stored: StoredResponse | None = None
    ) -> Any:
        """Ask the app; several who miss the same at the same time ask once."""
        cache = self.cache
        flight: Flight | None = None
        until_s: float | None = None
        if self._collapses(request, stored):
            for _ in range(ATTEMPTS_MAX):
                flight = cache.flights.lead(request.key, request.scope)
                if flight is not None:
                    break
                if until_s is None:
                    wait_s = self._worth_waiting_s(request, stored)
                    if not wait_s:
                        break
                    until_s = anyio.current_time() + wait_s
                followed = cache.flights.open[request.key]
                began_us = self._clock()
                meter = request.scope.get(METER)
                region = OUTSIDE if meter is None else meter.region
                if meter is not None:
                    meter.cross(OUTSIDE, perf_counter_ns())  # who waits does no work
                outcome = await cache.flights.follow(followed, until_s=until_s)
                if meter is not None:
                    meter.cross(region, perf_counter_ns())
                if cache.note_part is not None:
                    cache.note_part("cache", self._clock() - began_us)
                if outcome == "late":
                    # Its leader's client may read as slowly as it likes: nobody waits for that one.
                    cache.flights.land(followed, "gone")
                    flight = cache.flights.lead(request.key, request.scope)
                if outcome in {"unstorable", "late", "full"}:
                    break
                rule = cache.rules.rule_for(request.path)
                if rule is not request.rule and not request.take_rule(rule):
                    return await self._bypass(request, "rule", may_keep=False)
                if await self._answered_by_another(request, outcome == "failed"):
                    return None
        forwarding = Forwarding(
            cache,
            validation_of(request, stored) if stored is not None else request,
            reason,
            flight=flight,
            validating=stored,
        )
        return await forwarding.run(self.app)

    def _collapses(self, request: CacheRequest, stored: StoredResponse | None) -> bool:
        cache = self.cache
        if not cache.options.collapse or request.is_head:
            return False
        if stored is not None and stored.lifetimes.must_validate:
            return False  # what another's call brings would have to be asked about again
        directives = request.directives
        if directives is not None and (directives.no_store or directives.no_cache):
            return False
        if hash(request.primary) in cache.unstorable:
            return False
        return not request.is_for_one_client

    def _worth_waiting_s(self, request: CacheRequest, stored: StoredResponse | None) -> float:
        """How long another's answer is worth waiting for: 0 where none of its route is stored."""
        cache = self.cache
        options = cache.options
        if (
            stored is not None
            or request.rule is not None
            or options.default_ttl_s is not None
            or options.heuristic
            or policy_of(cache.flights.open[request.key].scope) is not None
        ):
            return options.collapse_wait_s
        likely = cache.evidence.of(request.path)
        if likely is None:
            return min(UNPROVEN_WAIT_S, options.collapse_wait_s)
        return options.collapse_wait_s if likely else 0.0

    async def _answered_by_another(self, request: CacheRequest, failed: bool) -> bool:
        """Whether the answer that another request brought is good for this one."""
        cache = self.cache
        stored, _ = self._select(request)
        if stored is None or not stored.is_safe_for(request.credentials):
            return False
        now_us = self._clock()
        if failed:
            if not may_serve_on_error(stored, request.directives, now_us=now_us):
                return False
        elif decide_reuse(stored, request.directives, now_us=now_us) is Reuse.VALIDATE:
            return False
        cache.figures.of(stored.route).collapsed += 1
        if cache.name_route is not None:
            cache.name_route(stored.route)
        tail = cache.forward_fields(stored, "miss", collapsed=True, detail=request.rule_name)
        await answer(request, stored, tail, wall_s=int(cache.wall_s()))
        return True

    async def _invalidating(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Invalidate before the client hears of success, and again when all is done (§4.4).

        What ends after the answer (FastAPI's `yield` dependencies, background tasks) may commit the
        write only then; who asked meanwhile has got, and stored, what was there before.
        """
        cache = self.cache
        came = as_it_came(scope)
        answered: list[tuple[bytes, bytes]] | None = None

        def sending(message: Message) -> Awaitable[None]:
            nonlocal answered
            if message["type"] == "http.response.start" and invalidates(
                came["method"], message["status"]
            ):
                answered = list(message.get("headers", ()))  # an iterator can be read once
                message = {**message, "headers": answered}
                written(cache, came, answered)
            return send(message)

        try:
            return await self.app(scope, receive, sending)
        finally:
            if answered is not None:
                written(cache, came, answered)


def _hosts(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(name == b"host" for name, _ in headers)

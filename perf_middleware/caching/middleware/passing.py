"""The shortest way of a miss: what takes no closer look than its head is passed on, or stored.

    says nothing of being stored, or is known not to be    only passed on
    head known, and then the whole body in one message     stored, then sent

Most answers are one of these.  What is not is handed over, with what it has sent so far, to a
Forwarding, which knows every case; so is a request whose client leaves while others wait for its
answer.  Both ways store the same and answer the same: a test goes both.
"""

from __future__ import annotations

from contextlib import suppress
from types import FunctionType
from typing import TYPE_CHECKING, Any

from perf_middleware.caching.cache_status import NO_FRESHNESS
from perf_middleware.caching.decorators import ATTRIBUTE, policy_of
from perf_middleware.caching.invalidation import target_and_path_of
from perf_middleware.caching.judgement import OF_ITS_URL, outcome_of_refusal
from perf_middleware.caching.known_heads import Known, age_without_date_us
from perf_middleware.caching.middleware.forwarding import Forwarding
from perf_middleware.caching.middleware.keeping import (
    Keeping,
    chosen_coding,
    known_length,
    with_forms,
)
from perf_middleware.caching.middleware.missing import miss
from perf_middleware.caching.plain_response import plain_response
from perf_middleware.caching.runtime.request import CacheRequest, primary_key
from perf_middleware.caching.stored import US_PER_S
from perf_middleware.coded_forms import WANTED

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.caching.figures import RouteCounts
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.special import Special


class Passing:
    """A GET of whose URL nothing is stored, on its way to the app; `leads`: others wait for it.

    Or one that is passed by for its credentials: those in `special`, where `rule` keeps them out,
    if there is one; `key` is empty then.  No rule has a key of its own here.

    Most requests are one of these.  It keeps what only a Forwarding needs as it is now: before the
    app has read its data, before it was routed, before a layer below rewrites the request.
    """

    __slots__ = (
        "_age_us", "_begun", "_cache", "_came", "_counts", "_host", "_keeps", "_key", "_leads",
        "_length", "_purges_seen", "_receive", "_received_us", "_route", "_rule", "_scope", "_send",
        "_sending_us", "_sent_us", "_special", "_then", "_values", "_wall_us", "_whole",
    )  # fmt: skip

    def __init__(
        self,
        cache: ResponseCache,
        scope: Scope,
        receive: Receive,
        send: Send,
        host: bytes,
        key: bytes,
        rule: CachePolicy | None,
        leads: bool,
        special: Special | None = None,
    ) -> None:
        self._cache = cache
        self._scope = scope
        self._receive = receive
        self._send = send
        self._host = host
        self._key = key
        self._special = special
        self._rule = rule
        self._leads = leads
        # As it came: from here on others may write into it.
        self._came = came = {**scope}
        came["headers"] = [*scope["headers"]]
        self._purges_seen = cache.purges.newest
        self._then: Send | None = None
        """Where messages go once the head has decided that."""
        self._whole: Forwarding | None = None

    async def run(self, app: ASGIApp) -> Any:
        """Call the app; who is to lead leads from here on, for a call may never run."""
        cache = self._cache
        if self._leads and not cache.flights.lead_alone(self._key, self._scope):
            request = CacheRequest(
                self._scope, self._receive, self._send, self._host, self._key, self._rule,
                cache.special.ignored_cookies,
            )  # fmt: skip
            return await miss(app, cache, request, "uri-miss")
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
            if self._then is not self._send:
                whole = self._whole or self._hand_over()
                whole.failed = whole.failed or failed
                whole.end()

    def send(self, message: Message) -> Awaitable[None]:
        """What the app sends; its head decides what becomes of all of it."""
        then = self._then
        if then is not None:
            return then(message)
        if message["type"] != "http.response.start":
            return self._send(message)
        verdict = self._verdict(message)
        if verdict is None:
            return self._hand_over().send(message)
        send: Send
        if isinstance(verdict, Known):
            field = self._take(verdict)
            self._then, send = self._send_body, self._send_kept_head
        else:
            self._then = send = self._send
            field = self._pass_on(verdict, message["status"])
        if field is not None:
            headers = [*message["headers"], field]
            message = {**message}  # alone: with a key beside it two are built
            message["headers"] = headers
        return send(message)

    def _pass_on(self, refused: str, code: int) -> tuple[bytes, bytes] | None:
        """Keep nothing of the answer, and `refused` is why; the field that tells it."""
        cache, special, rule = self._cache, self._special, self._rule
        status = cache.shown_status
        counts = self._count()
        field = None
        if special is not None:
            counts.refused[refused] = counts.refused.get(refused, 0) + 1
            counts.bypassed["credentials"] = counts.bypassed.get("credentials", 0) + 1
            if status is not None:
                field = special.bypass_field(status, None if rule is None else rule.name)
            return field
        if rule is None and refused is NO_FRESHNESS:
            counts.silent += 1
            if status is not None:
                field = status.silent_miss
        else:
            counts.refused[refused] = counts.refused.get(refused, 0) + 1
            counts.misses["uri-miss"] = counts.misses.get("uri-miss", 0) + 1
            if status is not None:
                detail = refused if rule is None else f"{rule.name}; {refused}"
                field = status.forwarded("uri-miss", stored=False, detail=detail)
        if self._leads:
            cache.flights.land_alone(self._key, self._scope, outcome_of_refusal(code))
        return field

    def _take(self, known: Known) -> tuple[bytes, bytes] | None:
        """Keep the answer, which has come so far as its head; the field that tells it."""
        self._keeps = known
        self._sending_us = 0
        counts = self._counts = self._count()
        counts.misses["uri-miss"] = counts.misses.get("uri-miss", 0) + 1
        status = self._cache.shown_status
        return None if status is None else known.stored_field(status)

    async def _send_kept_head(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            (self._whole or self._hand_over()).has_left()  # its answer is still kept
        sending_us = self._cache.clock() - self._received_us
        if self._whole is None:
            self._sending_us = sending_us
        else:
            self._whole.sending_us += sending_us

    async def _send_body(self, message: Message) -> None:
        """Store an answer that is whole with this message, and only then send that."""
        cache, key, scope, known = self._cache, self._key, self._scope, self._keeps
        body = message.get("body")
        if (
            self._whole is not None
            or type(body) is not bytes
            or len(body) != self._length
            or message.get("more_body")
            or message["type"] != "http.response.body"
            or cache.shared is not None
            or cache.purges.newest != self._purges_seen
            or cache.storing_bytes + len(body) > cache.storing_bytes_max
            or cache.store.peek(key) is not None
        ):
            await (self._whole or self._hand_over()).send(message)
            return
        now_us = cache.clock()
        produced_us = now_us - self._sent_us - self._sending_us
        if produced_us < 0:  # no max(): it takes as long as five of these lines
            produced_us = 0
        came = self._came
        target, path = target_and_path_of(
            came.get("scheme", "http"), self._host, came["raw_path"], came.get("query_string", b"")
        )
        stored = plain_response(
            known,
            self._values,
            body,
            key=key,
            target=target,
            path=path,
            route=self._route,
            counts=self._counts,
            choice=chosen_coding(cache, scope),
            age_us=self._age_us,
            produced_us=produced_us,
            received_us=self._received_us,
            received_s=self._wall_us // US_PER_S,
        )
        stored.refresh_early(cache.early_windows)
        if not cache.store.add(stored, now_us=now_us):
            whole = self._hand_over()
            whole.let_go("no-room")
            await whole.send(message)
            return
        cache.note_stored(stored)
        self._then = self._send
        if self._leads:
            cache.flights.land_alone(key, scope, "stored" if known.is_for_others else "unstorable")
        if WANTED in scope:
            message = with_forms(cache, scope, stored, message)
        with suppress(OSError):  # the client left; its answer is kept
            await self._send(message)

    async def receive(self) -> Message:
        """What the client sends: a body, or that it has left, is a Forwarding's."""
        message = await self._receive()
        if self._then is self._send:
            return message
        left = message["type"] == "http.disconnect"
        if left or message.get("body") or message.get("more_body"):
            whole = self._whole or self._hand_over()
            if left:
                return await whole.left_by_client(message)
            whole.saw_body()
        return message

    def _verdict(self, message: Message) -> Known | str | None:
        """How an answer with this head is kept, or why not; None: that takes a closer look."""
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
            if self._leads:
                outcome = outcome_of_refusal(message["status"])
                self._cache.refused.note(self._key, NO_FRESHNESS, outcome)
            return NO_FRESHNESS
        if self._special is None:
            return self._known_verdict(message, sent)
        try:
            if self._cache.judge.may_cover_credentials(dict(sent)):
                return None
        except TypeError:  # a name that is a buffer
            return None
        return "credentials"

    def _known_verdict(self, message: Message, sent: list[Any]) -> Known | str | None:
        """The same of a head like one before: what is said of all of them, and of its length."""
        cache, scope = self._cache, self._scope
        if "session" in scope or "user" in scope or "trailers" in message:
            return None
        found = cache.known_heads.of(message["status"], sent, self._rule)
        if found is None:
            return None
        known, values = found
        if known.keep is None:
            if known.why in OF_ITS_URL:
                cache.refused.note(self._key, known.why, outcome_of_refusal(known.status))
            return known.why
        came = self._came
        if not known.is_plain or came.get("root_path") or not came.get("raw_path"):
            return None
        length = known_length(cache, known, values)
        if length is None:
            return None
        now_us = cache.clock()
        wall_us = int(cache.wall_s() * US_PER_S)
        age_us = age_without_date_us(sent_us=self._sent_us, now_us=now_us, wall_us=wall_us)
        if age_us is None:
            return None
        self._values, self._length, self._age_us = values, length, age_us
        self._received_us, self._wall_us = now_us, wall_us
        return known

    def _count(self) -> RouteCounts:
        """The counts of the route that the app took."""
        cache, scope, came = self._cache, self._scope, self._came
        known = cache.templates.known.get(id(scope.get("route")))
        if known is None or "fastapi" in scope or scope.get("root_path") != came.get("root_path"):
            route = cache.route_of(scope, came.get("root_path") or "")
        else:
            route = known[1]
        self._route = route
        return cache.figures.by_route.get(route) or cache.figures.of(route)

    def _hand_over(self) -> Forwarding:
        """To what knows every case, with everything as it was when the request came."""
        cache, scope, special, key = self._cache, self._scope, self._special, self._key
        came = self._came
        if not key:
            key = primary_key(came, self._host)
        request = CacheRequest(
            scope, self._receive, self._send,
            host=self._host, primary=key, rule=self._rule,
            ignored_cookies=cache.special.ignored_cookies, came=came,
        )  # fmt: skip
        request.sent_us = self._sent_us
        if special is not None:
            request.take_special(special, with_directives=False)
        flight = cache.flights.flight_of(key, scope) if self._leads else None
        self._whole = whole = Forwarding(
            cache,
            request,
            "uri-miss" if special is None else "bypass",
            flight=flight,
            detail=None if special is None else special.reason,
            counted_as="" if special is None else "credentials",
        )
        whole.purges_seen = self._purges_seen
        whole.begun = self._begun
        if self._then is not None:
            known = self._keeps
            assert known.keep is not None  # noqa: S101 - it is kept
            keeping = Keeping(cache, request, known.keep, known.status, self._received_us)
            keeping.take_known_head(known, self._values, length=self._length, age_us=self._age_us)
            whole.go_on(keeping, self._route, self._counts)
            whole.sending_us = self._sending_us
        self._then = whole.send
        return whole

"""One call of the app for a request that the store could not answer; its answer is kept on the way.

    app -> start: judged -> body: streamed to the client and kept beside -> last: stored, then sent

What is stored is in the store before the client has its last byte: the client's next request finds
it.  Above the size limit an answer is only streamed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.judgement import OF_ITS_URL, outcome_of_refusal
from perf_middleware.caching.middleware.answers import HeldBack, answer, send_nothing, told_head
from perf_middleware.caching.middleware.heads import counted, drop_replaced, judge_head, known_head
from perf_middleware.caching.middleware.keeping import Keeping, known_keeping
from perf_middleware.caching.middleware.leaving import Leaving
from perf_middleware.caching.reuse import FAILURES, Reuse, decide_reuse, may_serve_on_error
from perf_middleware.caching.runtime.request import BodyRead
from perf_middleware.caching.special import CONDITIONAL
from perf_middleware.caching.validation import confirms
from perf_middleware.route_templates import UNMATCHED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from perf_middleware.asgi import ASGIApp, Message
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.fields import Lines
    from perf_middleware.caching.figures import RouteCounts
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.flights import Flight, Outcome
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.caching.stored import StoredResponse

logger = logging.getLogger("perf_middleware.caching")

_UNSEEN_BODIES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class Forwarding:
    """Passes one answer of the app on, and keeps it where that is allowed.

    `validating` is the stored response that the app is asked about; `flight` is open for others who
    wait for the outcome.  `counted_as` is the reason in the figures where it is not `reason`; None
    for a refresh that no client waits for.
    """

    # Defaults of the class: only few set them.
    _counts: RouteCounts | None = None
    _route = UNMATCHED
    _keeping: Keeping | None = None
    _held: HeldBack | None = None
    _started = False
    _hushed = False  # the client has its answer from elsewhere
    _why = ""  # the answer is not kept
    _unconfirmed = False
    sending_us = 0  # what the client has taken to read
    _leaving: Leaving | None = None
    _whole: Keeping | None = None  # stored as soon as it was whole, before the app's last word
    begun: Begun | None = None  # what the app reads for its answer, where that is collected
    failed = False
    on_release: Callable[[], None] | None = None
    """Called when the outcome is known: the app may still have work to do."""

    def __init__(
        self,
        cache: ResponseCache,
        request: CacheRequest,
        reason: Forward,
        *,
        flight: Flight | None = None,
        validating: StoredResponse | None = None,
        detail: str | None = None,
        may_keep: bool = True,
        counted_as: str | None = "",
    ) -> None:
        self._cache = cache
        self._request = request
        self._reason: Forward = reason
        self._counted_as = reason if counted_as == "" else counted_as
        self._detail = detail
        self._may_keep = may_keep
        self._flight = flight
        self._validating = validating
        self.purges_seen = cache.purges.newest
        self.root_path: str = request.came.get("root_path") or ""

    def go_on(self, keeping: Keeping, route: str, counts: RouteCounts) -> None:
        """From here on; the head has been judged, counted and sent."""
        self._keeping, self._route, self._counts = keeping, route, counts
        self._started = True

    async def run(self, app: ASGIApp) -> Any:
        """Call the app; whoever waits is released whatever happens."""
        request = self._request
        request.sent_us = self._cache.clock()
        self.begun = self._cache.tracked.begin(request.rule)
        try:
            returned = await app(request.scope, self.receive, self.send)
            if not self._unconfirmed:
                return returned
        except Exception:
            self.failed = True
            if self._started or not self._may_hide_failure():
                raise
            logger.exception(
                "the app failed; answered with a stale response (stale-if-error): %s",
                request.came["path"],
            )
            await self._answer_instead("stale-if-error")
            return None
        finally:
            self._cache.tracked.end(self.begun)
            self.end()
        # The app's 304 spoke of something else than what is stored: ask again, for the whole.
        again = request.rewritten(
            [pair for pair in request.came["headers"] if pair[0] not in CONDITIONAL]
        )
        again.receive = BodyRead(request.receive).receive
        second = Forwarding(self._cache, again, "stale", counted_as=None)
        try:
            return await second.run(app)
        finally:
            self.failed = second.failed

    async def receive(self) -> Message:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            return await self.left_by_client(message)
        if message.get("body") or message.get("more_body"):
            self.saw_body()
        return message

    def saw_body(self) -> None:
        """The app reads a body: its answer is for that alone (HTTP/2 announces none)."""
        self._may_keep = False
        if self._keeping is not None:
            self._count_refusal("body")
        self._release("gone")

    async def left_by_client(self, message: Message) -> Message:
        """The client's disconnect, for the app to hear when its answer matters to nobody else."""
        if self._is_awaited():
            # Others wait for this answer, or it is nearly stored: the app is not told to stop yet.
            leaving = self.has_left()
            if self._flight is not None:
                self._flight.on_alone = leaving.wake
            await leaving.outlast(self._is_awaited, seconds=self._cache.options.outlive_s)
            if self._is_awaited():
                self.let_go("abandoned")
        return message

    def has_left(self) -> Leaving:
        leaving = self._leaving = self._leaving or Leaving()
        return leaving

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            if self._hushed:
                return send_nothing()
            if self._keeping is not None:
                return self._body(message, self._keeping)
            if self._whole is not None and message.get("body"):
                self._take_back(self._whole)
            return self._request.send(message)
        if kind == "http.response.start" and not self._started:
            self._started = True
            return self._start(message)
        if kind in _UNSEEN_BODIES:
            self.let_go("unseen-body")
        if self._hushed:
            return send_nothing()
        if self._validating is not None and not self._started:
            return self._hold(message)
        return self._request.send(message)

    # --- the head -------------------------------------------------------------------------------

    def _start(self, message: Message) -> Awaitable[None]:
        cache, request = self._cache, self._request
        status = message["status"]
        if status < 200:
            self._started = False
            return self._hold(message)
        sent = message.get("headers", ())
        if not isinstance(sent, (list, tuple)):
            sent = list(sent)  # an iterator can be read once
            message = {**message, "headers": sent}
        self._count()
        if self._validating is not None:
            lines = cache.judge.collect(sent)
            if status == 304:
                return self._confirmed(sent, lines)
            self.failed = status in FAILURES
            if self.failed and self._may_hide_failure():
                return self._answer_instead("stale-if-error", status)
        elif self._counted_as is None:
            self.failed = status in FAILURES
        if self._may_keep and self._validating is None:
            found = known_head(cache, request, message, sent)
            if found is not None:
                if found[0].keep is None:
                    return self._refused(message, sent, found[0].why)
                keeping = self._keeping = known_keeping(cache, request, status, *found)
                if keeping is not None:
                    message = self._told(message, sent, None, None)
                    return self._send_kept_head(message, keeping.received_us)
        judged = judge_head(
            cache, request, message, sent, begun=self.begun,
            route=self._route, may_keep=self._may_keep, purges_seen=self.purges_seen,
        )  # fmt: skip
        if judged.keep is None:
            return self._refused(message, sent, judged.why, judged.tell_clients)
        keeping = self._keeping = Keeping(cache, request, judged.keep, status, judged.now_us)
        keeping.take_head(sent)
        message = self._told(message, sent, None, judged.tell_clients)
        return self._send_kept_head(message, judged.now_us)

    def _hold(self, message: Message) -> Awaitable[None]:
        """Keep an interim answer back until it is known whose answer follows it."""
        if self._validating is None:
            return self._request.send(message)
        self._held = self._held or HeldBack()
        return self._held.hold(message)

    def _send_head(self, message: Message) -> Awaitable[None]:
        held, self._held = self._held, None
        return self._request.send(message) if held is None else held.before(message, self._request)

    async def _send_kept_head(self, message: Message, began_us: int) -> None:
        try:
            await (self._request.send if self._held is None else self._send_head)(message)
        except OSError:
            self.has_left()  # its answer is still kept, as in _body
        self.sending_us += self._cache.clock() - began_us

    def _refused(
        self, message: Message, sent: Any, why: str | None, tell_clients: bytes | None = None
    ) -> Awaitable[None]:
        if why is not None:
            self._count_refusal(why)
            drop_replaced(self._cache, self._request, self._validating, message["status"])
        self._release(outcome_of_refusal(message["status"]))
        return self._send_head(self._told(message, sent, why, tell_clients))

    def _told(
        self, message: Message, sent: Any, why: str | None, tell_clients: bytes | None
    ) -> Message:
        status = self._cache.shown_status
        field = None
        if status is not None:
            detail = self._request.with_rule_name(self._detail or why)
            field = status.forwarded(self._reason, stored=self._keeping is not None, detail=detail)
        return told_head(message, sent, tell_clients=tell_clients, status=field)

    # --- the body -------------------------------------------------------------------------------

    async def _body(self, message: Message, keeping: Keeping) -> None:
        body = message.get("body", b"")
        why = keeping.add(body) if body else None
        if why is not None:
            self.let_go(why)
        elif not message.get("more_body") or (body and keeping.is_whole):
            why = keeping.store(
                self._route, purges_seen=self.purges_seen, sending_us=self.sending_us,
                begun=self.begun,
            )  # fmt: skip
            if why is not None:
                self.let_go(why)
            else:
                self._whole = keeping if message.get("more_body") else None
                message = keeping.with_forms(message)
                self._release("stored" if keeping.is_for_others else "unstorable")
        if self._leaving is not None and why is None:
            if not self._leaving.is_longer_ago_than(self._cache.options.outlive_s):
                return
            self.let_go(why := "abandoned")
        began_us = None if self._keeping is None else self._cache.clock()
        try:
            await self._request.send(message)
        except OSError:
            # The client left.  Its answer is still kept, which is bounded.
            if why is not None:
                raise
            self.has_left()
        if began_us is not None:
            self.sending_us += self._cache.clock() - began_us

    def _take_back(self, whole: Keeping) -> None:
        """More came than Content-Length had announced: nobody knows which of the two is wrong."""
        self._whole = None
        if whole.stored is not None:
            self._cache.let_go(whole.stored)
        self._count_refusal("content-length")

    # --- answers from the store after all -------------------------------------------------------

    async def _confirmed(self, sent: Sequence[tuple[bytes, bytes]], lines: Lines) -> None:
        """The app says 304: the stored response is good for another lifetime (RFC 9111 §4.3.3)."""
        cache, request, stored = self._cache, self._request, self._validating
        assert stored is not None  # noqa: S101 - asked for by its validators
        self._hushed = True
        if not stored.validators or not confirms(stored, lines, now_s=int(cache.wall_s())):
            self._unconfirmed = True
            cache.let_go(stored)
            return
        if cache.name_route is not None:
            cache.name_route(stored.route)
        stored, kept = cache.confirmed(
            stored, sent, lines, request, purges_seen=self.purges_seen, begun=self.begun
        )
        cache.figures.of(stored.route).revalidated += 1
        reuse = decide_reuse(stored, None, now_us=cache.clock())
        self._release("stored" if kept and reuse is not Reuse.VALIDATE else "unstorable")
        await self._answer(stored, 304, request.rule_name)

    def _may_hide_failure(self) -> bool:
        stored = self._validating
        return stored is not None and may_serve_on_error(
            stored, self._request.directives, now_us=self._cache.clock()
        )

    async def _answer_instead(self, why: str, status: int | None = None) -> None:
        cache, stored = self._cache, self._validating
        assert stored is not None  # noqa: S101 - what may hide the failure
        self._hushed = self._started = True
        if cache.name_route is not None:
            cache.name_route(stored.route)
        counts = cache.figures.of(stored.route)
        if self._counted_as is not None:  # a client has this answer
            counts.errors_hidden += 1
            counts.stale_hits += 1
        self._release("failed")
        await self._answer(stored, status, why)

    async def _answer(self, stored: StoredResponse, status: int | None, detail: str | None) -> None:
        cache = self._cache
        tail = cache.forward_fields(stored, self._reason, status=status, detail=detail)
        await answer(cache, self._request, stored, tail)

    # --- the end --------------------------------------------------------------------------------

    def _is_awaited(self) -> bool:
        """Whether the answer matters to others than this client."""
        flight = self._flight
        return self._keeping is not None or (
            flight is not None and flight.outcome is None and flight.waiting > 0
        )

    def let_go(self, why: str) -> None:
        """Go on without keeping the answer."""
        if self._keeping is not None:
            self._count_refusal(why)
        # The next answer is storable where this one came too late, or to a field that is too long.
        self._release("gone" if why in {"invalidated", "vary"} else "unstorable")

    def _count(self) -> RouteCounts:
        """Count the request, under the route that the app took for it."""
        self._route, self._counts = counted(
            self._cache, self._request, self.root_path, self._reason, counted_as=self._counted_as
        )
        return self._counts

    def _count_refusal(self, why: str) -> None:
        why = why.partition(":")[0]  # of credentials a client may send any set
        self._why = why
        refused = (self._counts or self._count()).refused
        refused[why] = refused.get(why, 0) + 1

    def _release(self, outcome: Outcome) -> None:
        """The outcome is known: let go of the body's parts, and of whoever waits."""
        if self._keeping is not None:
            self._keeping.drop()
            self._keeping = None
        flight = self._flight
        if self._why in OF_ITS_URL and self._may_keep:
            request = self._request
            # What is said to one of these is not said to everybody.
            if not (request.credentials or request.is_head or request.is_for_one_client):
                self._cache.refused.note(request.primary, self._why, outcome)
        if flight is not None and flight.outcome is None:
            self._cache.flights.land(flight, outcome)
        if self._leaving is not None:
            self._leaving.wake()
        if self.on_release is not None:
            self.on_release()

    def end(self) -> None:
        """The app has returned, or failed: release what is still held, count what is not."""
        if self._counts is None:
            self._count()
        if self._keeping is not None:
            self._count_refusal("incomplete")
        self.failed |= self._counted_as is None and not self._started
        # Of what has landed already nothing changes.
        self._release("failed" if self.failed and not self._started else "gone")

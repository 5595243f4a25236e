"""The part of an answer that has come so far, on its way into the store.

Bounded twice: by the size of an entry, and by a share of the store for all answers that are on
their way at once.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.fields import collect
from perf_middleware.caching.known_heads import age_without_date_us
from perf_middleware.caching.middleware.answers import forms_for
from perf_middleware.caching.middleware.heads import LENGTH_DIGITS_MAX
from perf_middleware.caching.stored import OWN_ETAG, US_PER_S, StoredResponse, groups_of
from perf_middleware.coded_forms import NEW_FORMS, WANTED
from perf_middleware.coding_choice import CHOSEN, choice_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import Message, Scope
    from perf_middleware.caching.fields import Headers, Lines
    from perf_middleware.caching.judgement import Keep
    from perf_middleware.caching.known_heads import Known
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.coding_choice import Choice

UNTOLD: Final = -1
PARTS_MAX = 64  # further ones are joined: an object for each of ten bytes takes five times that


class Keeping:
    """Collects one body; every refusal is a word for Cache-Status and the counters."""

    __slots__ = (
        "_age_us", "_cache", "_headers", "_held_bytes", "_keep", "_length", "_lines", "_parts",
        "_request", "_status", "is_for_others", "received_us", "stored",
    )  # fmt: skip

    _headers: Headers
    _lines: Lines | Known
    _length: int | None
    _age_us: int
    is_for_others: bool
    """Whether it may be sent again without asking the app first."""

    def __init__(
        self, cache: ResponseCache, request: CacheRequest, keep: Keep, status: int, received_us: int
    ) -> None:
        self._cache = cache
        self._request = request
        self._keep = keep
        self._status = status
        self.received_us = received_us  # the head's time: its age counts from there
        self._parts: list[bytes | bytearray] = []
        self._held_bytes = 0
        self.stored: StoredResponse | None = None

    def take_head(self, sent: Sequence[tuple[bytes, bytes]]) -> None:
        """Take what is to be kept of the fields `sent`.

        A copy now: a layer outside, or the app itself, may edit the list that goes out.
        """
        keep, rule = self._keep, self._request.rule
        self._headers = keep.headers(sent, rule.tell_clients if rule is not None else None)
        lines = self._lines = keep.lines
        length = lines.get(b"content-length")
        self._length = None if length is None else int(length[0])
        self._age_us = keep.initial_age_us
        lifetimes = keep.lifetimes
        usable_s = lifetimes.fresh_s + lifetimes.stale_while_revalidate_s
        self.is_for_others = not lifetimes.must_validate and self._age_us < usable_s * US_PER_S

    def take_known_head(
        self,
        known: Known,
        values: list[bytes],
        *,
        length: int | None,
        age_us: int,
    ) -> None:
        """The same of one that is like another before: all of it is kept."""
        self._headers = known.headers_with(values)
        self._lines = known
        self._length = length
        self._age_us = age_us
        self.is_for_others = known.is_for_others

    def add(self, body: bytes) -> str | None:
        """Take a part of the body; why not, where there is no room for it."""
        cache = self._cache
        size = len(body)
        if self._held_bytes + size > cache.options.entry_bytes_max:
            return "too-large"
        if cache.storing_bytes + size > cache.storing_bytes_max:
            return "busy"
        self._held_bytes += size
        cache.storing_bytes += size
        parts = self._parts
        if len(parts) < PARTS_MAX:
            parts.append(bytes(body))
        else:
            if len(parts) == PARTS_MAX:
                parts.append(bytearray())
            parts[PARTS_MAX] += body
        return None

    @property
    def is_whole(self) -> bool:
        """Whether all bytes that Content-Length announces are here; False without it."""
        return self._length == self._held_bytes

    def drop(self) -> None:
        """Give the room back."""
        self._parts = []
        self._cache.storing_bytes -= self._held_bytes
        self._held_bytes = 0

    def store(
        self, route: str, *, purges_seen: int, sending_us: int, begun: Begun | None = None
    ) -> str | None:
        """Put the complete answer into the store; why not, where it may not or cannot be.

        `sending_us` of the time since the app was called is what the client took to read; `begun`
        is what has been read for it, where that is collected.
        """
        cache, request, keep, lines = self._cache, self._request, self._keep, self._lines
        body = b"".join(self._parts)
        if self._length is None:
            if self._status != 204:
                if not isinstance(lines, dict):
                    lines = collect(self._headers, lines.shape.fields)
                self._headers.append((b"content-length", b"%d" % len(body)))
        elif self._length != len(body):
            return "incomplete"
        rule = request.rule
        target = request.target
        tags: tuple[str, ...] = ()
        dependencies: tuple[str, ...] = ()
        if rule is not None:
            if rule.tags:
                tags = rule.tags_for(_parameters(rule, request))
            if rule.tracked:
                refused = cache.tracked.refusal(rule, begun, is_whole=True)
                if refused is not None or begun is None:
                    return refused
                dependencies = begun[0].tags()
                purges_seen = begun[0].since(purges_seen)
                tags += dependencies
                self._name_body(body)
            if rule.query is not None:
                target = target.partition(b"?")[0]  # whatever the query of who made it
        if isinstance(lines, dict):
            tags += groups_of(lines)
        key = cache.key_for(request, keep.vary)
        if key is None:
            return "vary"
        if cache.purges.since(purges_seen, target, tags):
            return "invalidated"
        now_us = cache.clock()
        produced_us = now_us - request.sent_us - sending_us
        if produced_us < 0:  # no max(): it takes as long as five of these lines
            produced_us = 0
        stored = StoredResponse(
            primary=request.primary,
            key=key,
            target=target,
            status=self._status,
            headers=self._headers,
            lines=lines,
            body=body,
            lifetimes=keep.lifetimes,
            initial_age_us=self._age_us,
            produced_us=produced_us,
            now_us=self.received_us,
            vary=keep.vary,
            tags=tags,
            route=route,
            rule=rule,
            shares_authorization=keep.shares_authorization,
            choice=chosen_coding(cache, request.scope),
            dependencies=dependencies,
        )
        if cache.shared is not None:
            cache.shared.share(stored, request.lines, purges_seen=purges_seen)
        if not cache.keep(stored, now_us):
            return "no-room"
        if request.came.get("root_path"):
            cache.note_root(request.came)
        self.stored = stored
        return None

    def _name_body(self, body: bytes) -> None:
        """An entity tag where the app has none: clients who must ask each time can ask by it."""
        if self._status != 200 or any(name == b"etag" for name, _ in self._headers):
            return
        digest = blake2b(body, digest_size=12).hexdigest().encode()
        # Weak: another coding of the same body has it too.
        self._headers.append((b"etag", b"W/" + OWN_ETAG + digest + b'"'))

    def with_forms(self, message: Message) -> Message:
        """The message whose body was stored just now, with room for that body's coded forms."""
        if WANTED not in self._request.scope or self.stored is None:
            return message
        return with_forms(self._cache, self._request.scope, self.stored, message)


def chosen_coding(cache: ResponseCache, scope: Scope) -> Choice | None:
    """What the endpoint, or an answer stored further in, says of its codings."""
    router_scope = cache.router_scope
    chosen = choice_of(scope.get("endpoint"), scope["method"])
    if chosen is None and router_scope is not None:
        # A layer between may have copied the scope before the router wrote into it.
        chosen = choice_of(router_scope(scope).get("endpoint"), scope["method"])
    return chosen or scope.get(CHOSEN)


def with_forms(
    cache: ResponseCache, scope: Scope, stored: StoredResponse, message: Message
) -> Message:
    """The message that brought the body of `stored`, with room for its coded forms."""
    if message.get("body") is not stored.body or message.get("more_body"):
        return message
    forms = forms_for(cache, scope, stored, NEW_FORMS)
    return message if forms is None else {**message, NEW_FORMS: forms}


def known_keeping(
    cache: ResponseCache,
    request: CacheRequest,
    status: int,
    known: Known,
    values: list[bytes],
) -> Keeping | None:
    """What keeps an answer with a head like one before; None where it has to be looked at.

    That is for a length, a room or an age of its own.
    """
    length = known_length(cache, known, values)
    if known.keep is None or length is None:
        return None
    now_us = cache.clock()
    wall_us = int(cache.wall_s() * US_PER_S)
    age_us = age_without_date_us(sent_us=request.sent_us, now_us=now_us, wall_us=wall_us)
    if age_us is None:
        return None
    keeping = Keeping(cache, request, known.keep, status, now_us)
    length = None if length == UNTOLD else length
    keeping.take_known_head(known, values, length=length, age_us=age_us)
    return keeping


def known_length(cache: ResponseCache, known: Known, values: list[bytes]) -> int | None:
    """What Content-Length announces, UNTOLD without it; None for no length, or no room for it."""
    if cache.storing_bytes >= cache.storing_bytes_max:
        return None
    at = known.shape.length_at
    if at < 0:
        return UNTOLD
    digits = values[at]
    if not digits.isdigit() or len(digits) > LENGTH_DIGITS_MAX:
        return None
    length = int(digits)
    return length if length <= cache.options.entry_bytes_max else None


def _parameters(rule: CachePolicy, request: CacheRequest) -> dict[str, Any]:
    """The parameters of the rule's pattern, and those of the route."""
    own = {} if rule.pattern is None else rule.pattern.parameters(request.path)
    return own | (request.scope.get("path_params") or {})

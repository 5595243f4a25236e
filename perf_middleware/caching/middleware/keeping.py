"""The part of an answer that has come so far, on its way into the store.

Bounded twice: by the size of an entry, and by a share of the store for all answers that are on
their way at once.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from perf_middleware.caching.middleware.answers import forms_for
from perf_middleware.caching.stored import OWN_ETAG, US_PER_S, StoredResponse, groups_of
from perf_middleware.coded_forms import NEW_FORMS
from perf_middleware.coding_choice import CHOSEN, choice_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import Message
    from perf_middleware.caching.judgement import Keep
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.coding_choice import Choice

PARTS_MAX = 64  # further ones are joined: an object for each of ten bytes takes five times that


class Keeping:
    """Collects one body; every refusal is a word for Cache-Status and the counters."""

    __slots__ = (
        "_cache", "_headers", "_held_bytes", "_keep", "_parts", "_received_us", "_request",
        "_status", "stored",
    )  # fmt: skip

    def __init__(
        self,
        cache: ResponseCache,
        request: CacheRequest,
        keep: Keep,
        *,
        status: int,
        sent: Sequence[tuple[bytes, bytes]],
        received_us: int,
    ) -> None:
        self._cache = cache
        self._request = request
        self._keep = keep
        self._status = status
        self._received_us = received_us  # the head's time: its age counts from there
        # A copy now: a layer outside, or the app itself, may edit the list that goes out.
        rule = request.rule
        self._headers = keep.headers(sent, rule.tell_clients if rule is not None else None)
        self._parts: list[bytes | bytearray] = []
        self._held_bytes = 0
        self.stored: StoredResponse | None = None

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
        length = self._keep.lines.get(b"content-length")
        return length is not None and int(length[0]) == self._held_bytes

    @property
    def is_for_others(self) -> bool:
        """Whether it may be sent again without asking the app first."""
        lifetimes = self._keep.lifetimes
        usable_s = lifetimes.fresh_s + lifetimes.stale_while_revalidate_s
        return not lifetimes.must_validate and self._keep.initial_age_us < usable_s * US_PER_S

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
        cache, request, keep = self._cache, self._request, self._keep
        body = b"".join(self._parts)
        length = keep.lines.get(b"content-length")
        if length is not None and int(length[0]) != len(body):
            return "incomplete"
        if length is None and self._status != 204:
            self._headers.append((b"content-length", b"%d" % len(body)))
        rule = request.rule
        tags = () if rule is None else rule.tags_for(_parameters(rule, request))
        dependencies: tuple[str, ...] = ()
        if rule is not None and rule.tracked:
            refused = cache.tracked.refusal(rule, begun, is_whole=True)
            if refused is not None or begun is None:
                return refused
            dependencies = begun[0].tags()
            purges_seen = begun[0].since(purges_seen)
            self._name_body(body)
        tags += dependencies + groups_of(keep.lines)
        target = request.target
        if rule is not None and rule.query is not None:
            target = target.partition(b"?")[0]  # whatever the query of the request that made it
        key = cache.store.key_of(request.primary, keep.vary, request.lines)
        if key is None:
            return "vary"
        if cache.purges.since(purges_seen, target, tags):
            return "invalidated"
        stored = StoredResponse(
            primary=request.primary,
            key=key,
            target=target,
            status=self._status,
            headers=self._headers,
            lines=keep.lines,
            body=body,
            lifetimes=keep.lifetimes,
            initial_age_us=keep.initial_age_us,
            produced_us=max(0, cache.clock() - request.sent_us - sending_us),
            now_us=self._received_us,
            vary=keep.vary,
            tags=tags,
            route=route,
            rule=rule,
            shares_authorization=keep.shares_authorization,
            choice=self._choice(),
            dependencies=dependencies,
        )
        if cache.shared is not None:
            cache.shared.share(stored, request.lines, purges_seen=purges_seen)
        if not cache.keep(stored):
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

    def _choice(self) -> Choice | None:
        """What the endpoint, or an answer stored further in, says of its codings."""
        scope, router_scope = self._request.scope, self._cache.router_scope
        chosen = choice_of(scope.get("endpoint"), scope["method"])
        if chosen is None and router_scope is not None:
            # A layer between may have copied the scope before the router wrote into it.
            chosen = choice_of(router_scope(scope).get("endpoint"), scope["method"])
        return chosen or scope.get(CHOSEN)

    def with_forms(self, message: Message) -> Message:
        """The message whose body was stored just now, with room for that body's coded forms."""
        stored = self.stored
        if stored is None or message.get("body") is not stored.body or message.get("more_body"):
            return message
        forms = forms_for(self._cache, self._request.scope, stored, NEW_FORMS)
        return message if forms is None else {**message, NEW_FORMS: forms}


def _parameters(rule: CachePolicy, request: CacheRequest) -> dict[str, Any]:
    """The parameters of the rule's pattern, and those of the route."""
    own = {} if rule.pattern is None else rule.pattern.parameters(request.path)
    return own | (request.scope.get("path_params") or {})

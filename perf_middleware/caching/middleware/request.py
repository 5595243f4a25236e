"""One GET or HEAD request, as the cache sees it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import anyio

from perf_middleware.asgi import raw_path
from perf_middleware.caching.fields import CREDENTIALS
from perf_middleware.caching.invalidation import target_of
from perf_middleware.caching.judgement import credentials_reason
from perf_middleware.caching.syntax.directives import RequestDirectives, parse_request_directives

if TYPE_CHECKING:
    from perf_middleware.asgi import Message, Receive, Scope, Send
    from perf_middleware.caching.fields import Lines
    from perf_middleware.caching.rules import CachePolicy

logger = logging.getLogger("perf_middleware.caching")

CONDITIONAL: Final = frozenset({b"if-none-match", b"if-modified-since"})
PRECONDITIONS: Final = frozenset({b"if-match", b"if-unmodified-since"})
PARTIAL: Final = frozenset({b"range", b"if-range"})
DIRECTIVES: Final = frozenset({b"cache-control", b"pragma"})
BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
SPECIAL: Final = CREDENTIALS | CONDITIONAL | PRECONDITIONS | PARTIAL | DIRECTIVES | BODY
"""Request fields that take more than a look-up; a request without any is the fast case."""

_OF_ONE_CLIENT: Final = CONDITIONAL | PARTIAL
NO_CREDENTIALS: Final[frozenset[bytes]] = frozenset()

_ORIGINS: Final = {"http": b"http://", "https": b"https://"}


def primary_key(scope: Scope, host: bytes) -> bytes:
    """Origin, path and query as they were sent: two requests share it only for one URL.

    A line feed stands between host and path: no field can contain one, while a client may well send
    a Host that looks like a piece of a path.
    """
    query = scope.get("query_string")
    scheme = scope.get("scheme", "http")
    origin = _ORIGINS.get(scheme) or scheme.encode() + b"://"
    path = raw_path(scope)
    routed = scope["path"].encode("utf-8", "surrogateescape")
    if path != routed and unquote_to_bytes(path) != routed:
        # A middleware outside rewrote it, by a language or a tenant: the router goes by that.
        path += b"\n" + routed
    if query:
        return b"%b%b\n%b?%b" % (origin, host, path, query)
    return b"%b%b\n%b" % (origin, host, path)


@dataclass(frozen=True, slots=True)
class Special:
    """What it means that a request has these fields: worked out once for each set of them."""

    credentials: frozenset[bytes]
    reason: str
    is_for_one_client: bool
    """Conditions and ranges ask for an answer that is of no use to others."""
    has_directives: bool
    is_simple: bool
    """Nothing but credentials."""
    is_out: bool
    """Preconditions are the app's alone to judge (RFC 9111 §4.3.2).  A body has no meaning here,
    but an app may read it: its answer is for that body alone."""

    @classmethod
    def of(cls, names: frozenset[bytes], *, has_body: bool) -> Special:
        credentials = names & CREDENTIALS
        return cls(
            credentials=credentials,
            reason=credentials_reason(credentials) if credentials else "",
            is_for_one_client=bool(names & _OF_ONE_CLIENT),
            has_directives=bool(names & DIRECTIVES),
            is_simple=names == credentials,
            is_out=has_body or bool(names & PRECONDITIONS),
        )


class SpecialRequests:
    """The meaning of each set of special fields that was seen, at most KEPT_MAX."""

    KEPT_MAX: Final = 1_000

    def __init__(self) -> None:
        self._kept: dict[frozenset[bytes], Special] = {}
        self._kept_with_body: dict[frozenset[bytes], Special] = {}

    def of(self, fields: dict[bytes, bytes]) -> Special:
        names = SPECIAL.intersection(fields)
        has_body = fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields
        kept = self._kept_with_body if has_body else self._kept
        known = kept.get(names)
        if known is None:
            known = Special.of(names, has_body=has_body)
            if len(kept) < self.KEPT_MAX:
                kept[names] = known
        return known


class CacheRequest:
    """What of the request decides about storing and reusing; the rest is worked out when asked."""

    credentials = NO_CREDENTIALS
    is_for_one_client = False
    directives: RequestDirectives | None = None
    rewritten_from: CacheRequest | None = None
    sent_us = 0
    _lines: Lines | None = None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        host: bytes,
        primary: bytes,
        rule: CachePolicy | None,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.host = host
        self.url = self.primary = self.key = primary
        self.rule = rule

    @property
    def lines(self) -> Lines:
        """Every header field of the request, its lines in order."""
        lines = self._lines
        if lines is None:
            lines = self._lines = {}
            for name, value in self.scope["headers"]:
                low = name.lower()
                if low in lines:
                    lines[low].append(value)
                else:
                    lines[low] = [value]
        return lines

    @property
    def is_head(self) -> bool:
        return bool(self.scope["method"] == "HEAD")

    @property
    def wants_only_stored(self) -> bool:
        """only-if-cached: rather nothing than to ask the app (RFC 9111 §5.2.1.7)."""
        return self.directives is not None and self.directives.only_if_cached

    @property
    def rule_name(self) -> str | None:
        return None if self.rule is None else self.rule.name

    def rewritten(
        self, headers: list[tuple[bytes, bytes]], *, method: str | None = None
    ) -> CacheRequest:
        """The same request for the app with other header fields; the client's stays as it is."""
        scope = {**self.scope, "headers": headers, "method": method or self.scope["method"]}
        other = CacheRequest(
            scope, self.receive, self.send, host=self.host, primary=self.url, rule=self.rule
        )
        other.primary, other.key = self.primary, self.key
        other.credentials, other.directives = self.credentials, self.directives
        other.rewritten_from = self
        return other

    @property
    def target(self) -> bytes:
        scope = self.scope
        return target_of(
            scope.get("scheme", "http"), self.host, raw_path(scope), scope.get("query_string", b"")
        )

    def take_special(self, special: Special, *, with_directives: bool) -> None:
        """Take in what the fields in SPECIAL say."""
        self.credentials = special.credentials
        self.is_for_one_client = special.is_for_one_client
        if with_directives and special.has_directives:
            lines = self.lines
            self.directives = parse_request_directives(
                lines.get(b"cache-control", ()), lines.get(b"pragma", ())
            )

    def take_rule(self, rule: CachePolicy | None) -> bool:
        """Work out the key under `rule`; False where the rule keeps this request out."""
        self.rule = rule
        self.primary = self.url
        if rule is not None and rule.has_own_key:
            try:
                suffix = rule.key_suffix(self.scope, self.lines)
            except Exception:
                logger.exception("the key of the cache rule %s failed: not cached", rule.name)
                return False
            if suffix is None:
                return False
            query = self.scope.get("query_string")
            url = self.url
            if rule.query is not None and query:
                url = url[: -len(query) - 1]  # the rule's own choice of it is in the suffix
            self.primary = url + suffix
        self.key = self.primary
        return True


def personal(scope: Scope) -> str | None:
    """What a middleware outside made of the request that makes its answer one client's own.

    A session's cookie and Vary are added further out, after this cache has seen the answer.
    """
    if scope.get("session"):
        return "session"
    if getattr(scope.get("user"), "is_authenticated", False):
        return "user"
    return None


class Silence:
    """The client of a request that no client sends: no body, nobody leaves, nobody listens."""

    def __init__(self) -> None:
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await anyio.sleep_forever()
        raise AssertionError  # pragma: no cover - never reached

    async def send(self, message: Message) -> None:
        """Nobody listens."""

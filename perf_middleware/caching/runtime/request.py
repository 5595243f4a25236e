"""One GET or HEAD request, as the cache sees it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import anyio

from perf_middleware.asgi import app_path, raw_path
from perf_middleware.caching.invalidation import root_of, target_of
from perf_middleware.caching.syntax.directives import RequestDirectives, parse_request_directives

if TYPE_CHECKING:
    from perf_middleware.asgi import Message, Receive, Scope, Send
    from perf_middleware.caching.cookies import IgnoredCookies
    from perf_middleware.caching.fields import Lines
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.special import Special

logger = logging.getLogger("perf_middleware.caching")

NO_CREDENTIALS: Final[frozenset[bytes]] = frozenset()
_MAY_BE_BLANK: Final = frozenset({bool, bytes, dict, str})

_ORIGINS: Final = {"http": b"http://", "https": b"https://"}


def primary_key(scope: Scope, host: bytes) -> bytes:
    """Origin, path and query as they were sent: two requests share it only for one URL.

    A line feed stands between host and path: no field can contain one, while a client may well send
    a Host that looks like a piece of a path.
    """
    try:
        origin = _ORIGINS[scope["scheme"]]
        query, path = scope["query_string"], scope["raw_path"]
    except KeyError:  # another scheme, or a server that leaves out what it may
        scheme = scope.get("scheme", "http")
        origin = _ORIGINS.get(scheme) or scheme.encode() + b"://"
        query, path = scope.get("query_string"), None
    if path is None:
        path = raw_path(scope)
    routed = scope["path"].encode("utf-8", "surrogateescape")
    if path != routed and unquote_to_bytes(path) != routed:
        # A middleware outside rewrote it, by a language or a tenant: the router goes by that.
        path += b"\n" + routed
    # join: three quarters of the time of b"%b", which every look-up would pay
    if query:
        return b"".join((origin, host, b"\n", path, b"?", query))
    return b"".join((origin, host, b"\n", path))


def as_it_came(scope: Scope) -> Scope:
    """A copy that no layer below writes into: Starlette's MutableHeaders edits a scope in place."""
    came = dict(scope)
    came["headers"] = list(scope["headers"])
    return came


class CacheRequest:
    """What of the request decides about storing and reusing; the rest is worked out when asked.

    `scope` is the app's to write into; `came` is the request as it came here, which decides: a copy
    that is made when it is first asked for, or by `freeze`, before the app is called.
    """

    credentials = NO_CREDENTIALS
    is_for_one_client = False
    directives: RequestDirectives | None = None
    rewritten_from: CacheRequest | None = None
    spared: frozenset[int] = frozenset()
    """Answers with this status leave what is stored as it is."""
    sent_us = 0
    _key_suffix = b""
    _lines: Lines | None = None
    _came: Scope | None = None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        host: bytes,
        primary: bytes,
        rule: CachePolicy | None,
        ignored_cookies: IgnoredCookies | None,
        *,
        came: Scope | None = None,
    ) -> None:
        self.scope = scope
        if came is not None:
            self._came = came
        self.receive = receive
        self.send = send
        self.host = host
        self.url = self.primary = self.key = primary
        self.rule = rule
        self._ignored_cookies = ignored_cookies

    @property
    def came(self) -> Scope:
        """The scope as it came here."""
        return self._came or self.freeze()

    def freeze(self) -> Scope:
        """Keep the scope as it is: from here on others may write into it."""
        if self._came is None:
            self._came = as_it_came(self.scope)
        return self._came

    @property
    def lines(self) -> Lines:
        """Every header field of the request, its lines in order; no cookie that does not count."""
        lines = self._lines
        if lines is None:
            lines = self._lines = {}
            for name, value in self.came["headers"]:
                low = name.lower()
                if low in lines:
                    lines[low].append(value)
                else:
                    lines[low] = [value]
            if self._ignored_cookies is not None and b"cookie" in lines:
                others = self._ignored_cookies.leave_of(lines.pop(b"cookie"))
                if others:
                    lines[b"cookie"] = others
        return lines

    @property
    def is_head(self) -> bool:
        return bool((self._came or self.scope)["method"] == "HEAD")

    @property
    def wants_only_stored(self) -> bool:
        """only-if-cached: rather nothing than to ask the app (RFC 9111 §5.2.1.7)."""
        return self.directives is not None and self.directives.only_if_cached

    def _suffix(self, rule: CachePolicy, scope: Scope) -> bytes | None:
        try:
            return rule.key_suffix(scope, self.lines)
        except Exception:
            if rule.tells_failure():
                logger.exception("the key of the cache rule %s failed: not cached", rule.name)
            return None

    def key_holds(self) -> bool:
        """Whether the rule's functions give the same now that the app has routed the request.

        They run before the router and its dependencies when an answer is looked for: one that reads
        what only those write would give everybody the same key.
        """
        rule = self.rule
        if rule is None or not rule.has_functions:
            return True
        scope = {**self.scope, "headers": self.came["headers"]}
        if self._suffix(rule, scope) == self._key_suffix:
            return True
        if rule.tells_failure():
            logger.error(
                "the key of the cache rule %s is another one after routing than before: not "
                "cached; it must not read what the router, a dependency or the endpoint writes",
                rule.name,
            )
        return False

    @property
    def rule_name(self) -> str | None:
        return None if self.rule is None else self.rule.name

    def with_rule_name(self, detail: str | None) -> str | None:
        """What Cache-Status tells as detail: it begins with the rule, where one holds."""
        if self.rule is None:
            return detail
        return self.rule.name if detail is None else f"{self.rule.name}; {detail}"

    def rewritten(
        self, headers: list[tuple[bytes, bytes]], *, method: str | None = None
    ) -> CacheRequest:
        """The same request for the app with other header fields; the client's stays as it is."""
        scope = {**self.came, "headers": headers, "method": method or self.came["method"]}
        other = CacheRequest(
            scope,
            self.receive,
            self.send,
            host=self.host,
            primary=self.url,
            rule=self.rule,
            ignored_cookies=self._ignored_cookies,
        )
        other.primary, other.key = self.primary, self.key
        other.credentials, other.directives = self.credentials, self.directives
        other.spared = self.spared
        other.rewritten_from = self
        return other

    @property
    def target(self) -> bytes:
        scope = self.came
        return target_of(
            scope.get("scheme", "http"),
            self.host,
            scope.get("raw_path") or raw_path(scope),
            scope.get("query_string", b""),
            root=root_of(scope) if scope.get("root_path") else b"",
        )

    @property
    def path(self) -> str:
        """The decoded path, as the app's router sees it."""
        return app_path(self._came or self.scope)

    def take_special(self, special: Special, *, with_directives: bool) -> None:
        """Take in what the special fields say."""
        self.credentials = special.credentials
        self.is_for_one_client = special.is_for_one_client
        if with_directives and special.has_directives:
            lines = self.lines
            self.directives = parse_request_directives(
                lines.get(b"cache-control", ()), lines.get(b"pragma", ())
            )

    def take_rule(self, rule: CachePolicy | None) -> bool:
        """Work out the key under `rule`; False where the rule keeps this request out.

        It has no key then: such a request is only passed on.
        """
        self.rule = rule
        if rule is not None and rule.bypass:
            return False
        self.primary = self.url
        if rule is not None and rule.has_own_key:
            suffix = self._suffix(rule, self.came)
            if suffix is None:
                return False
            self._key_suffix = suffix
            query = self.came.get("query_string")
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
    user = scope.get("user")
    # A middleware may put a name or claims there: what does not say that it is nobody is somebody.
    if user is not None and getattr(user, "is_authenticated", not _is_blank(user)):
        return "user"
    return None


def _is_blank(user: object) -> bool:
    """Whether it is an empty name or none of claims; an object of the app's own is not asked."""
    return type(user) in _MAY_BE_BLANK and not user


class BodyRead:
    """A request whose body an earlier call of the app has read: it is empty, the rest goes on."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._asked = False

    async def receive(self) -> Message:
        if self._asked:
            return await self._receive()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}


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

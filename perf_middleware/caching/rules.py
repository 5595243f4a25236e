"""Rules: what the app's owner says about caching some routes, beside the app's own headers.

A rule comes from settings (by path pattern) or from a decorator on the endpoint.  One from settings
is known before the request is routed.  One from a decorator is known once its path was answered,
and remembered by path from then on: until then a request is looked up without it, which can only
miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from inspect import iscoroutinefunction
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes, urlencode

from perf_middleware.caching.syntax.lists import is_token
from perf_middleware.path_patterns import PathPattern

KeyOf: TypeAlias = Callable[[Mapping[str, Any]], "str | bytes | None"]
"""From the ASGI scope to a part of the key; None: this request is not to be cached."""

STATUSES: Final = frozenset({200, 203, 204, 300, 301, 308})
"""Which answers a rule's `ttl_s` is for."""
NEGATIVE_STATUSES: Final = frozenset({404, 405, 410, 414, 501})
"""Which answers `negative_ttl_s` is for: final until the app changes (RFC 9110 §15.1)."""

SECONDS_MAX: Final = 10 * 365 * 86_400
TRACKED_TTL_S: Final = 86_400
"""An upper bound: purges end it long before."""
TRACKED_TOLD: Final = b"no-cache"  # no client hears of a purge: each asks, and mostly gets a 304
PATHS_MAX: Final = 10_000  # whose rule is remembered
PATH_CHARS_MAX: Final = 512  # of those; a longer one is looked up each time
ROUTES_MAX: Final = 1_000  # with a rule on their endpoint
KEY_PART_BYTES_MAX: Final = 4_096
FAILURES_TOLD_EVERY: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """What one rule says.  Seconds are whole; None leaves it to the response's own headers.

    `ttl_s` is how long we take an answer for fresh, whatever its headers tell clients;
    `tell_clients` is the Cache-Control that clients get instead of the app's.
    `private_by` names request fields (`authorization`, `cookie`, `cookie:session`) whose values
    become part of the key, or is a callable: what the answer depends on is then told apart, and a
    request with credentials may be answered from the store.  `shared` says that the answer is the
    same for everybody, whatever credentials a request carries.  `tracked`: an answer holds until a
    commit writes a table that it was made of; `ttl_s` is an upper bound then.
    """

    name: str
    ttl_s: int | None = None
    negative_ttl_s: int | None = None
    stale_while_revalidate_s: int | None = None
    stale_if_error_s: int | None = None
    vary: tuple[bytes, ...] = ()
    query: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    key: KeyOf | None = None
    private_by: tuple[str, ...] | KeyOf = ()
    shared: bool = False
    bypass: bool = False
    tracked: bool = False
    tell_clients: bytes | None = None
    pattern: PathPattern | None = None
    """Of the paths that a rule from settings is for."""
    on_endpoint: bool = False
    """Found on the endpoint that the router took, and checked there at every answer."""
    has_own_key: bool = field(init=False, default=False)
    """The key needs more than the URL."""
    needs_request: bool = field(init=False, default=False)
    """A request must be looked at before its URL is looked up."""
    says_nothing_of_clients: bool = field(init=False, default=False)
    """Neither whose an answer is nor what else it depends on: no request with credentials is
    answered by it."""
    failures: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)
    """How often a function of it failed, in one place."""

    def __post_init__(self) -> None:
        if self.shared and self.private_by:
            raise ValueError(f"{self.name}: `shared` and `private_by` contradict each other")
        if self.tracked and self.bypass:
            raise ValueError(f"{self.name}: `tracked` and `bypass` contradict each other")
        if self.tracked and self.ttl_s is None:
            object.__setattr__(self, "ttl_s", TRACKED_TTL_S)
        if self.tracked and self.tell_clients is None:
            own = b"private, " if self.private_by else b""
            object.__setattr__(self, "tell_clients", own + TRACKED_TOLD)
        # Asked for at every hit: worked out once.
        has_own_key = self.query is not None or self.key is not None or bool(self.private_by)
        needs_request = self.bypass or has_own_key
        says_nothing = not (needs_request or self.vary or self.is_for_all_or_one)
        object.__setattr__(self, "has_own_key", has_own_key)
        object.__setattr__(self, "needs_request", needs_request)
        object.__setattr__(self, "says_nothing_of_clients", says_nothing)
        if self.key is not None and not callable(self.key):
            raise TypeError(f"{self.name}: key must be a function of the scope, not {self.key!r}")
        for function in (self.key, self.private_by):
            if iscoroutinefunction(function):
                raise ValueError(f"{self.name}: a part of the key cannot be an async function")
        for name in (*self.vary, *_field_names(self.private_by)):
            if not is_token(name) or name != name.lower() or name == b"*":
                text = name.decode("utf-8", "replace")
                raise ValueError(f"{self.name}: {text!r} is no header name in lower case")
        for by in () if callable(self.private_by) else self.private_by:
            field, colon, cookie = by.partition(":")
            if colon and not (field == "cookie" and is_token(cookie.encode())):
                raise ValueError(f"{self.name}: {by!r} names no cookie")  # it would tell none apart

    @property
    def has_functions(self) -> bool:
        return self.key is not None or callable(self.private_by)

    def tells_failure(self) -> bool:
        """Whether this failure of a function of it is to be logged: the first, then every 1,000th.

        A function that fails, fails at each request.
        """
        self.failures[0] += 1
        return self.failures[0] % FAILURES_TOLD_EVERY == 1

    @property
    def is_for_all_or_one(self) -> bool:
        """Whether it says whose the answer is: everybody's, or the one's in the key."""
        return self.shared or bool(self.private_by)

    def covers(self, credentials: frozenset[bytes]) -> bool:
        """Whether this rule makes it safe to share an answer to a request that carries these."""
        if self.shared or callable(self.private_by):
            return True
        return bool(self.private_by) and credentials <= set(_field_names(self.private_by))

    def key_suffix(
        self, scope: Mapping[str, Any], fields: Mapping[bytes, Sequence[bytes]]
    ) -> bytes | None:
        """What this rule adds to the key; None where the request is not to be cached.

        An identity is kept as a digest: no key holds a secret.
        """
        parts = [b"" if self.query is None else _chosen(scope, self.query)]
        if self.key is not None:
            part = self.key(scope)
            if part is None:
                return None
            parts.append(_as_bytes(part))
        if callable(self.private_by):
            identity: object = self.private_by(scope)
            if identity is None:
                return None
            if isinstance(identity, bool):
                raise TypeError(
                    f"private_by gave {identity}, which says whether and not who: all would share "
                    "one answer (None: do not cache; what differs by a few cases is a key)"
                )
            parts.append(_digest([_as_bytes(identity)]))
        elif self.private_by:
            parts.append(_digest([_digest(_values_of(name, fields)) for name in self.private_by]))
        if sum(map(len, parts)) > KEY_PART_BYTES_MAX:
            parts = [_digest(parts)]
        return b"".join(b"\0%d:%b" % (len(part), part) for part in parts)

    def tags_for(self, path_params: Mapping[str, Any]) -> tuple[str, ...]:
        """The tags, with the route's parameters in them; one that lacks some is left out."""
        tags = []
        for tag in self.tags:
            if "{" in tag:
                try:
                    tags.append(tag.format_map(path_params))
                except (KeyError, ValueError, IndexError, AttributeError, TypeError):
                    continue
            else:
                tags.append(tag)
        return tuple(tags)


class RuleBook:
    """Which rule holds for a path: the first of the configured ones that matches it.

    Else one that was learnt from an endpoint, for all paths of its route.  That is a first guess:
    the endpoint is asked for its rule at every answer.
    """

    def __init__(self, rules: Sequence[tuple[PathPattern, CachePolicy]] = ()) -> None:
        self._rules = tuple(rules)
        self._learnt: dict[str, tuple[PathPattern, CachePolicy]] = {}
        self.known: dict[str, CachePolicy | None] = {}
        """By decoded path; it may be read instead of calling `rule_for`."""
        self.has_any = bool(self._rules)
        self.has_tracked = any(policy.tracked for _, policy in self._rules)

    def rule_for(self, path: str) -> CachePolicy | None:
        """The rule of a decoded path."""
        try:
            return self.known[path]
        except KeyError:
            for pattern, policy in (*self._rules, *self._learnt.values()):
                if pattern.matches(path):
                    return self._remember(path, policy)
            return self._remember(path, None)

    def learn(self, path: str, rule: CachePolicy | None, route: str) -> None:
        """The endpoint that answered `path`, on the route with this template, has this rule."""
        self.has_any = True
        if rule is not None and route not in self._learnt and len(self._learnt) < ROUTES_MAX:
            try:
                self._learnt[route] = (PathPattern.of(route), rule)
            except ValueError:
                pass  # no template: nothing more is known than this path
            else:
                self.known.clear()
        self._remember(path, rule)

    def _remember(self, path: str, rule: CachePolicy | None) -> CachePolicy | None:
        if len(path) <= PATH_CHARS_MAX:
            if len(self.known) >= PATHS_MAX:
                self.known.clear()
            self.known[path] = rule
        return rule


def as_identity(name: str) -> str:
    """An item of `private_by` with its field in lower case: `Cookie:ID` is `cookie:ID`."""
    field_name, colon, cookie = name.strip().partition(":")
    return field_name.lower() + colon + cookie


def field_value(text: str) -> bytes:
    """`text` as a header value; raises ValueError for what none may contain (RFC 9110 §5.5)."""
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text: no header value")
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"{text!r} cannot be a header value")
    return text.encode()


def _field_names(private_by: tuple[str, ...] | KeyOf) -> tuple[bytes, ...]:
    if callable(private_by):
        return ()
    return tuple(name.partition(":")[0].encode() for name in private_by)


def _values_of(name: str, fields: Mapping[bytes, Sequence[bytes]]) -> Sequence[bytes]:
    """The lines of `authorization`, or every value of one cookie, `cookie:session`.

    Every one: of several cookies of one name some apps take the first, others the last.
    """
    field, _, cookie = name.partition(":")
    lines = fields.get(field.encode(), ())
    if not cookie:
        return lines
    values = []
    for pair in ";".join(line.decode("latin-1") for line in lines).split(";"):
        key, _, text = pair.partition("=")
        if key.strip() == cookie:  # as apps do: of a text, which takes more for white space
            values.append(text.strip().encode("latin-1"))
    return values


def _chosen(scope: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    """The parameters of these names in their order, `a%20b` and `a+b` in one spelling.

    Bytes that should have been escaped stay as they are: what they mean is the app's to say.
    """
    query: bytes = scope.get("query_string", b"")
    chosen = []
    for pair in query.split(b"&"):
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        # A name in UTF-8, or as what decodes the query from Latin-1 first reads it.
        read = (unquote_to_bytes(name), unquote_to_bytes(name.decode("latin-1")))
        if any(text.decode("utf-8", "replace") in names for text in read):
            spelled = urlencode([(read[0], unquote_to_bytes(value))]).encode()
            chosen.append(spelled if pair.isascii() else pair)
    return b"&".join(chosen)


def _as_bytes(part: object) -> bytes:
    """Raises TypeError for an object: its text may be an address, which another one gets later."""
    if isinstance(part, bytes):
        return part
    if not isinstance(part, str | int):
        raise TypeError(f"a part of a key must be text, bytes or a number, not {type(part)}")
    return str(part).encode("utf-8", "surrogatepass")


def _digest(parts: Sequence[bytes]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest().encode()

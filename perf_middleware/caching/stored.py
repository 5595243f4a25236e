"""A stored response: what was kept of one answer of the app, ready to be sent again.

Everything that a hit needs is worked out when it is stored.  Times are whole microseconds of the
monotonic clock:

    born_us          fresh_until_us          usable_until_us   usable_if_error_us
       |---- fresh ----------|                      |                  |
       |                     |- app asked behind it |                  |
       |                     |- stands in for a failure of the app ----|
    now - born_us is the current age
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.caching.cache_status import age_alone
from perf_middleware.caching.fields import AUTHORIZATION, collect
from perf_middleware.caching.figures import RouteCounts
from perf_middleware.caching.invalidation import path_of
from perf_middleware.caching.syntax.etags import parse_etag
from perf_middleware.caching.syntax.structured import parse_string_list

if TYPE_CHECKING:
    from perf_middleware.caching.cache_status import CacheStatus, Tail
    from perf_middleware.caching.fields import Headers, Lines
    from perf_middleware.caching.forms import CodedForms
    from perf_middleware.caching.known_heads import Known
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.syntax.directives import ResponseDirectives
    from perf_middleware.caching.syntax.etags import EntityTag
    from perf_middleware.coding_choice import Choice

US_PER_S: Final = 1_000_000
NOT_SHOWN: Final = -(2**63)  # before any time on any clock
_UNCOUNTED: Final = RouteCounts()  # until it is in a store
NO_TAIL: Final[Tail] = ()
VALIDATED_FOR_S: Final = 600  # a stale response with a validator is worth keeping for a while
# Measured with tracemalloc over some thousand entries (CPython 3.11); a test keeps them true.
ENTRY_BYTES: Final = 1_550  # slots, lists, times, the tail of a hit; its places in a store
HEADER_BYTES: Final = 135  # two bytes objects and their tuple
LINE_BYTES: Final = 130  # a field among `lines`: its name and list, the value is the header's
# Of a known head: its names are the shape's, and nothing is kept as `lines`.
KNOWN_HEADER_BYTES: Final = 105
NO_LINES_BYTES: Final = 150
TAG_BYTES: Final = 310  # a tag that no other entry has: the string, and its place in the index
OWN_ETAG: Final = b'"~'
"""How the entity tags begin that this cache has made: the app knows none of them."""
OF_CONTENT: Final = frozenset(
    {b"content-digest", b"content-encoding", b"content-language", b"content-length",
     b"content-md5", b"content-range", b"content-type", b"repr-digest"}
)  # fmt: skip
"""What a 304 leaves out of the stored fields: the client has it (RFC 9110 §15.4.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long a response may be used; all in seconds, counted from each other.

    `stale_while_revalidate_s` and `stale_if_error_s` are 0 where stale use is forbidden.
    """

    fresh_s: int
    stale_while_revalidate_s: int = 0
    stale_if_error_s: int = 0
    may_be_stale: bool = True
    """Whether a client's max-stale counts (not with must-revalidate and its likes)."""
    must_validate: bool = False
    """no-cache: never used without asking the app."""


class StoredResponse:
    """One complete response of the app, as hits send it.

    `headers` are the stored fields, `lines` the app's own words about caching; for a head that is
    known they are read from `headers`.  `tags` are those of its rule, then its `dependencies`, and
    behind them the groups that its `lines` name.  One that has dependencies is used only while
    memory is known to lack no purge (runtime/tracked.py).
    """

    __slots__ = (
        "_lines", "body", "born_us", "choice", "counts", "dependencies", "early_from_us", "etag",
        "forms", "fresh_until_us", "headers", "hits", "identity", "key",
        "last_modified", "lifetimes", "path", "primary", "produced_us", "received_s",
        "refresh_from_us", "route", "rule", "shares_authorization", "shown_until_us",
        "size_bytes", "status", "stored_us", "tags", "tail", "target", "usable_if_error_us",
        "usable_until_us", "useless_from_us", "vary",
    )  # fmt: skip

    etag: EntityTag | None
    last_modified: bytes | None
    forms: CodedForms | None
    """Made when somebody can use them."""
    identity: bytes
    """Of the same in the store that all processes share."""
    received_s: int | None
    """Unix time of its head, once it is in a store."""
    size_bytes: int
    tail: Tail
    """What a hit adds, until `shown_until_us`."""
    useless_from_us: int
    """From then on it can answer nothing, not even after the app has confirmed it."""
    _lines: Lines | frozenset[bytes]

    def __init__(
        self,
        *,
        primary: bytes,
        key: bytes,
        target: bytes,
        status: int,
        headers: Headers,
        lines: Lines | Known,
        body: bytes,
        lifetimes: Lifetimes,
        initial_age_us: int,
        produced_us: int,
        now_us: int,
        vary: tuple[bytes, ...],
        tags: tuple[str, ...],
        route: str,
        rule: CachePolicy | None,
        shares_authorization: bool = False,
        choice: Choice | None = None,
        dependencies: tuple[str, ...] = (),
    ) -> None:
        self.dependencies = dependencies
        self.primary = primary
        self.choice = choice  # of its endpoint, for a layer that encodes
        self.shares_authorization = shares_authorization
        self.key = key
        self.target = target
        self.path = path_of(target)  # with its query
        self.status = status
        self.body = body
        self.vary = vary
        self.tags = tags
        self.route = route
        self.rule = rule
        self.hits = 0
        self.counts = _UNCOUNTED
        self.produced_us = produced_us
        self.identity = b""
        self.forms = None
        self.received_s = None
        if isinstance(lines, dict):
            self._set_headers(headers, lines)
        else:
            self._set_known_headers(headers, lines)
        self._set_times(lifetimes, initial_age_us, now_us)

    def _set_known_headers(self, headers: Headers, known: Known) -> None:
        """The same as `_set_headers`, of what is known of the head without a look at each field."""
        shape = known.shape
        self.headers = headers
        self._lines = shape.fields
        etag_at, modified_at = shape.etag_at, shape.modified_at
        self.etag = None if etag_at < 0 else parse_etag(headers[etag_at][1])
        self.last_modified = None if modified_at < 0 else headers[modified_at][1]
        self.size_bytes = (
            self._size_bytes() + known.head_bytes + sum([len(value) for _, value in headers])
        )
        known.head_bytes = known.shared_head_bytes

    def _size_bytes(self) -> int:
        """The room that it takes beside its head."""
        primary = self.primary
        size_bytes = (
            ENTRY_BYTES + len(self.body) + 3 * len(primary)  # itself, the target, the target's path
        )
        if self.key is not primary and self.key != primary:
            size_bytes += len(self.key)
        for tag in self.tags:
            size_bytes += TAG_BYTES + len(tag)
        if self.forms is not None:
            size_bytes += self.forms.size_bytes
        return size_bytes

    def _set_headers(self, headers: Headers, lines: Lines) -> None:
        self.headers = headers
        self._lines = lines
        size_bytes = self._size_bytes() + LINE_BYTES * len(lines) + HEADER_BYTES * len(headers)
        etag: bytes | None = None
        last_modified: bytes | None = None
        for name, value in headers:
            size_bytes += len(name) + len(value)
            # Of several lines the first counts.
            if name == b"etag":
                if etag is None:
                    etag = value
            elif name == b"last-modified" and last_modified is None:
                last_modified = value
        self.size_bytes = size_bytes
        self.etag = None if etag is None else parse_etag(etag)
        self.last_modified = last_modified

    def _set_times(self, lifetimes: Lifetimes, initial_age_us: int, now_us: int) -> None:
        self.lifetimes = lifetimes
        self.stored_us = now_us
        self.born_us = now_us - initial_age_us
        fresh_until_us = self.born_us + lifetimes.fresh_s * US_PER_S
        self.fresh_until_us = self.born_us if lifetimes.must_validate else fresh_until_us
        self.usable_until_us = fresh_until_us + lifetimes.stale_while_revalidate_s * US_PER_S
        self.usable_if_error_us = fresh_until_us + lifetimes.stale_if_error_s * US_PER_S
        # From here on a hit may be the one that refreshes it early; without it, when it is stale.
        self.early_from_us = self.fresh_until_us
        self.tail = NO_TAIL
        self.shown_until_us = NOT_SHOWN
        self.refresh_from_us = 0  # not before, where one has failed
        until_us = max(fresh_until_us, self.usable_until_us, self.usable_if_error_us)
        if self.etag is not None or self.last_modified is not None:
            until_us += VALIDATED_FOR_S * US_PER_S
        self.useless_from_us = until_us

    @property
    def lines(self) -> Lines:
        """The app's own words about caching; those of a known head are read each time, for they are
        seldom asked for, and kept they would take room that is not accounted for.
        """
        lines = self._lines
        return lines if isinstance(lines, dict) else collect(self.headers, lines)

    @property
    def rule_name(self) -> str | None:
        return None if self.rule is None else self.rule.name

    @property
    def not_modified_headers(self) -> Headers:
        """What a 304 tells of it."""
        return [pair for pair in self.headers if pair[0] not in OF_CONTENT]

    @property
    def validators(self) -> Headers:
        """The request fields that ask the app whether this is still it (RFC 9111 §4.3.1)."""
        fields = []
        if self.etag is not None and not self.etag.opaque.startswith(OWN_ETAG):
            fields.append((b"if-none-match", b"W/" * self.etag.weak + self.etag.opaque))
        if self.last_modified is not None:
            fields.append((b"if-modified-since", self.last_modified))
        return fields

    def show(self, now_us: int, status: CacheStatus | None) -> Tail:
        """Age and Cache-Status of a hit at `now_us`, written once a second.

        `tail` may be read instead, as long as it is before `shown_until_us`.
        """
        if now_us >= self.shown_until_us:
            age_s = self.age_s(now_us)
            born_us = self.born_us
            if status is None:
                self.tail = age_alone(age_s)
            else:
                ttl_s = (self.fresh_until_us - born_us) // US_PER_S - age_s
                self.tail = status.hit_tail(age_s, ttl_s, self.rule_name)
            self.shown_until_us = born_us + (age_s + 1) * US_PER_S
        return self.tail

    def age_s(self, now_us: int) -> int:
        """The current age, whole seconds (RFC 9111 §4.2.3)."""
        born_us = self.born_us
        return (now_us - born_us) // US_PER_S if now_us > born_us else 0

    def refresh_early(self, windows: float) -> None:
        """Let hits refresh it, each by chance, in the last of its freshness: for as many `windows`
        as it took to make, and never from its first half on.
        """
        fresh_until_us = self.fresh_until_us
        window_us = int(self.produced_us * windows)
        half_us = (fresh_until_us - self.born_us) // 2
        if window_us > half_us:  # no min(): it takes as long as all the rest
            window_us = half_us
        self.early_from_us = fresh_until_us - window_us

    def is_safe_for(self, credentials: frozenset[bytes]) -> bool:
        """Whether a request that carries these may have it: by its own rule, or by its Vary."""
        if not credentials or (self.rule is not None and self.rule.covers(credentials)):
            return True
        left = credentials.difference(self.vary)
        return not left or (self.shares_authorization and left == AUTHORIZATION)

    @property
    def is_of_any_query(self) -> bool:
        """Whether its target stands for every query: its rule chose the parameters that count."""
        return self.rule is not None and self.rule.query is not None

    def tags_with(
        self, lines: Lines, dependencies: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Its tags, with the groups of `lines` in place of those that it is in now, and other
        `dependencies` where there are any.
        """
        own = len(self.tags) - len(groups_of(self.lines)) - len(self.dependencies)
        kept = self.dependencies if dependencies is None else dependencies
        return self.tags[:own] + kept + groups_of(lines)

    def make_stale(self, now_us: int) -> None:
        """A soft purge: from now on only for those who may have it stale."""
        self.fresh_until_us = self.early_from_us = min(self.fresh_until_us, now_us)
        if not self.lifetimes.may_be_stale:
            self.usable_until_us = self.usable_if_error_us = self.fresh_until_us
        self.shown_until_us = NOT_SHOWN

    def confirmed(
        self,
        headers: Headers,
        lines: Lines,
        lifetimes: Lifetimes,
        *,
        initial_age_us: int,
        now_us: int,
        dependencies: tuple[str, ...] | None = None,
    ) -> StoredResponse:
        """This response with the fields and times of a successful validation (RFC 9111 §4.3.4).

        A new one: others may be sending this one right now.
        """
        other = copy(self)
        other.tags = self.tags_with(lines, dependencies)
        if dependencies is not None:
            other.dependencies = dependencies
        other.identity = b""
        other._set_headers(headers, lines)  # noqa: SLF001
        other._set_times(lifetimes, initial_age_us, now_us)  # noqa: SLF001
        return other


def groups_of(lines: Lines) -> tuple[str, ...]:
    """The names in Cache-Groups; none where the field is no list of strings (RFC 9875 §2)."""
    values = lines.get(b"cache-groups")
    return tuple(parse_string_list(values) or ()) if values else ()


def lifetimes_of(
    directives: ResponseDirectives,
    *,
    fresh_s: int,
    stale_while_revalidate_s: int | None = None,
    stale_if_error_s: int | None = None,
) -> Lifetimes:
    """How long a response with these directives may be used.

    The two stale ones are a rule's; without them the response's own count.  must-revalidate,
    proxy-revalidate, no-cache and, for a shared cache, s-maxage forbid every stale use; of them
    s-maxage alone gives way to what a rule says.
    Source: RFC 9111 §4.2.4, §5.2.2; RFC 5861 §3, §4.
    """
    revalidate_s, if_error_s = stale_while_revalidate_s, stale_if_error_s
    if directives.s_maxage is None:
        revalidate_s = _first(revalidate_s, directives.stale_while_revalidate)
        if_error_s = _first(if_error_s, directives.stale_if_error)
    if (
        directives.must_revalidate
        or directives.proxy_revalidate
        or directives.no_cache
        or (revalidate_s is None and if_error_s is None)
    ):
        return Lifetimes(fresh_s=fresh_s, may_be_stale=False, must_validate=directives.no_cache)
    revalidate_s, if_error_s = revalidate_s or 0, if_error_s or 0
    return Lifetimes(
        fresh_s=fresh_s, stale_while_revalidate_s=revalidate_s, stale_if_error_s=if_error_s
    )


def _first(*values: int | None) -> int:
    return next((value for value in values if value is not None), 0)

"""Is this answer of the app to be stored, under which conditions, for how long?

    head of the answer -> Keep(...)   or the reason why not, as Cache-Status tells it

Brings the RFC's rules (storability, freshness) and the owner's (rules, options) together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from perf_middleware.caching.cache_status import NO_FRESHNESS
from perf_middleware.caching.fields import RATE_LIMITS, RESPONSE_FIELDS, collect, storable_headers
from perf_middleware.caching.freshness import (
    HEURISTIC_STATUSES,
    date_s_of,
    directives_of,
    freshness_lifetime_s,
    heuristic_lifetime_s,
    initial_age_us,
)
from perf_middleware.caching.reuse import FAILURES
from perf_middleware.caching.rules import NEGATIVE_STATUSES, STATUSES, CachePolicy
from perf_middleware.caching.selection import vary_names
from perf_middleware.caching.storability import (
    permits_authorization,
    refusal,
    uncovered_credentials,
)
from perf_middleware.caching.stored import US_PER_S, Lifetimes, lifetimes_of
from perf_middleware.caching.variants import united

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from perf_middleware.caching.fields import Headers, Lines
    from perf_middleware.caching.options import CacheOptions
    from perf_middleware.caching.syntax.directives import ResponseDirectives

COOKIE: Final = frozenset({b"cookie"})
READ_MAX: Final = 512
NEVER_KEPT: Final = RATE_LIMITS | {b"age", b"cache-status"}
"""Left out of what is stored, beside what the answer itself or its connection rules out."""
EVENT_STREAM: Final = b"text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Store it: for how long, told apart by `vary`, without the fields in `without`."""

    lifetimes: Lifetimes
    initial_age_us: int
    vary: tuple[bytes, ...]
    without: frozenset[bytes]
    lines: Lines
    shares_authorization: bool = False
    """Also among requests with Authorization, whichever it is."""

    def headers(self, sent: Iterable[tuple[bytes, bytes]], tell_clients: bytes | None) -> Headers:
        """The stored fields of an answer with the fields `sent`."""
        without = self.without
        if tell_clients is not None:
            without |= {b"cache-control", b"expires", b"pragma"}
        kept = storable_headers(sent, connection=self.lines.get(b"connection", ()), without=without)
        if tell_clients is not None:
            kept.append((b"cache-control", tell_clients))
        return kept


OF_ITS_URL: Final = frozenset(
    {"already-stale", "content-length", "event-stream", "must-understand", NO_FRESHNESS, "no-reads",
     "no-store", "private", "replica", "set-cookie", "status", "too-large", "trailers",
     "unseen-body", "vary", "wrote"}
)  # fmt: skip
"""Refusals that the next request for a URL will most likely meet as well."""


def outcome_of_refusal(status: int) -> Literal["unstorable", "failed", "gone"]:
    """What it means for those who wait, or come next, that an answer was not stored.

    unstorable: theirs will not be stored either.  A failure says nothing of them, nor does any
    other error, which one client may be refused with alone (403, 429): another one may lead.
    """
    if status < 400 or status in NEGATIVE_STATUSES:
        return "unstorable"
    return "failed" if status in FAILURES else "gone"


class Judge:
    """Judges the answers of one app."""

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        self.fields = RESPONSE_FIELDS | set(options.targeted) | {b"content-type"}
        freshness = {b"cache-control", b"expires", *options.targeted}
        if options.heuristic:
            freshness.add(b"last-modified")
        self._freshness = frozenset(freshness)
        self._directive_fields = (*options.targeted, b"cache-control")
        self._read: dict[tuple[tuple[bytes, ...], ...], tuple[ResponseDirectives, bool]] = {}
        self._needs_a_word = options.default_ttl_s is None

    def collect(self, headers: Iterable[tuple[bytes, bytes]]) -> Lines:
        """The lines of the fields that a judgement needs."""
        return collect(headers, self.fields)

    def is_silent(self, sent: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether an answer with these fields, without a rule, says nothing of being stored."""
        if not self._needs_a_word:
            return False
        freshness = self._freshness
        try:
            for name, _ in sent:  # no generator: it costs as much again, for each answer
                if name.lower() in freshness:
                    return False
        except TypeError:  # a name that is a buffer
            return freshness.isdisjoint(self.collect(sent))
        return True

    def may_cover_credentials(self, names: Container[bytes]) -> bool:
        """Whether an answer with these fields may make it safe to share one to credentials.

        Of Vary in any other spelling nothing is lost but a place in the store.
        """
        return b"vary" in names or b"Vary" in names or self.options.authorization_by_rfc

    def judge(
        self,
        status: int,
        lines: Lines,
        *,
        credentials: frozenset[bytes],
        no_store: bool,
        sent_us: int,
        rule: CachePolicy | None,
        now_us: int,
        wall_us: int,
    ) -> Keep | str:
        """Keep, or why not; `credentials` and `no_store` are the request's.

        `sent_us` is when the app was called, on the clock of `now_us`; `wall_us` is Unix time.
        """
        if rule is None and self._needs_a_word and self._freshness.isdisjoint(lines):
            return NO_FRESHNESS
        directives, targeted = self._directives_of(lines)
        refused = refusal(status, directives, request_no_store=no_store)
        if refused is not None:
            return refused
        names = vary_names(lines.get(b"vary", ()))
        if names is not None and rule is not None:
            names = united(names, rule.vary)
        if names is None:
            return "vary"
        if lines.get(b"content-type", (b"",))[0].lower().startswith(EVENT_STREAM):
            return "event-stream"
        refused = self._unsafe_to_share(lines, credentials, directives, rule, frozenset(names))
        if refused is not None:
            return refused
        date_s = date_s_of(lines, now_s=wall_us // US_PER_S)
        age_us = initial_age_us(
            lines, date_s=date_s, response_us=wall_us, delay_us=max(0, now_us - sent_us)
        )
        has_validator = b"etag" in lines or b"last-modified" in lines
        age_s = age_us // US_PER_S
        fresh_s = self._fresh_s(status, lines, directives, rule, targeted, date_s, age_s)
        if fresh_s is None:
            return NO_FRESHNESS
        lifetimes = lifetimes_of(
            directives,
            fresh_s=fresh_s,
            stale_while_revalidate_s=rule.stale_while_revalidate_s if rule else None,
            stale_if_error_s=rule.stale_if_error_s if rule else None,
        )
        usable_s = fresh_s + max(lifetimes.stale_while_revalidate_s, lifetimes.stale_if_error_s)
        if usable_s * US_PER_S <= age_us and not has_validator:
            return "already-stale"
        secret = directives.no_cache_fields | directives.private_fields
        if b"set-cookie" in lines:
            secret |= {b"set-cookie"}
        if secret:  # nothing of them is to stay in memory
            lines = {name: values for name, values in lines.items() if name not in secret}
        return Keep(
            lifetimes=lifetimes,
            initial_age_us=age_us,
            vary=names,
            without=secret | NEVER_KEPT,
            lines=lines,
            shares_authorization=self.options.authorization_by_rfc
            and permits_authorization(directives),
        )

    def _directives_of(self, lines: Lines) -> tuple[ResponseDirectives, bool]:
        """What the lines say; an app says the same few things again and again."""
        said = tuple([tuple(lines.get(name, ())) for name in self._directive_fields])
        known = self._read.get(said)
        if known is None:
            known = directives_of(lines, self.options.targeted)
            if len(self._read) < READ_MAX:
                self._read[said] = known
        return known

    def _unsafe_to_share(
        self,
        lines: Lines,
        credentials: frozenset[bytes],
        directives: ResponseDirectives,
        rule: CachePolicy | None,
        vary: frozenset[bytes],
    ) -> str | None:
        if b"set-cookie" in lines and not (rule is not None and rule.covers(COOKIE)):
            return "set-cookie"
        if credentials and not (rule is not None and rule.covers(credentials)):
            left = uncovered_credentials(
                credentials,
                directives,
                vary=vary,
                authorization_by_rfc=self.options.authorization_by_rfc,
            )
            if left:
                return credentials_reason(left)
        return None

    def _fresh_s(
        self,
        status: int,
        lines: Lines,
        directives: ResponseDirectives,
        rule: CachePolicy | None,
        targeted: bool,
        date_s: int,
        age_s: int,
    ) -> int | None:
        """A rule's word, the response's own, the default, a guess: the first that there is."""
        if rule is not None:
            # Counted from now on: the owner speaks of our store, not of the way to it.
            if rule.ttl_s is not None and status in STATUSES:
                return rule.ttl_s + age_s
            if rule.negative_ttl_s is not None and status in NEGATIVE_STATUSES:
                return rule.negative_ttl_s + age_s
        explicit = freshness_lifetime_s(directives, lines, targeted=targeted, date_s=date_s)
        if explicit is not None:
            return explicit
        if directives.no_cache and (directives.public or status in HEURISTIC_STATUSES):
            # For other statuses no-cache permits nothing by itself (RFC 9111 §3).
            return 0
        if self.options.default_ttl_s is not None and status in STATUSES:
            return self.options.default_ttl_s + age_s
        if self.options.heuristic:
            return heuristic_lifetime_s(status, lines, date_s=date_s)
        return None


def credentials_reason(names: frozenset[bytes]) -> str:
    """`credentials: authorization, cookie`"""
    return "credentials: " + b", ".join(sorted(names)).decode("latin-1")

"""The request fields that take more than a look-up, and what each set of them means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from perf_middleware.caching.fields import CREDENTIALS
from perf_middleware.caching.judgement import credentials_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.caching.cache_status import CacheStatus
    from perf_middleware.caching.cookies import IgnoredCookies

CONDITIONAL: Final = frozenset({b"if-none-match", b"if-modified-since"})
PRECONDITIONS: Final = frozenset({b"if-match", b"if-unmodified-since"})
PARTIAL: Final = frozenset({b"range", b"if-range"})
DIRECTIVES: Final = frozenset({b"cache-control", b"pragma"})
BODY: Final = frozenset({b"content-length", b"transfer-encoding"})

NO_HOST: Final = -1
SEVERAL_HOSTS: Final = -2

_OF_ONE_CLIENT: Final = CONDITIONAL | PARTIAL
_COOKIE: Final = frozenset({b"cookie"})
_LENGTH: Final = frozenset({b"content-length"})


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
    fields: dict[str | None, tuple[bytes, bytes]] = field(default_factory=dict)
    """Cache-Status of a request passed by for its credentials, by the name of the rule."""

    def bypass_field(self, status: CacheStatus, rule: str | None) -> tuple[bytes, bytes]:
        """Cache-Status, as `status` writes it, of a request that is passed by under `rule`."""
        found = self.fields.get(rule)
        if found is None:
            detail = self.reason if rule is None else f"{rule}; {self.reason}"
            found = self.fields[rule] = status.forwarded("bypass", stored=False, detail=detail)
        return found

    @classmethod
    def of(
        cls, names: frozenset[bytes], credentials: frozenset[bytes], *, has_body: bool
    ) -> Special:
        credentials &= names
        return cls(
            credentials=credentials,
            reason=credentials_reason(credentials) if credentials else "",
            is_for_one_client=bool(names & _OF_ONE_CLIENT),
            has_directives=bool(names & DIRECTIVES),
            is_simple=names == credentials,
            is_out=has_body or bool(names & PRECONDITIONS),
        )


class SpecialFields:
    """Which fields are special to one cache, and the meaning of each set of them that was seen.

    `credentials` say who asks, beside those in CREDENTIALS.

    `known` may be read instead of calling `of`: by the names of a request's fields, in their order.
    The same few clients send the same few sequences again and again.  Beside the meaning stands the
    place of Host among them: NO_HOST without one, SEVERAL_HOSTS where it is not clear which counts.
    """

    KEPT_MAX: Final = 1_000  # sets, and sequences, of fields whose meaning is remembered
    SEQUENCE_BYTES_MAX: Final = 2_000  # a client chooses them

    def __init__(
        self, *, credentials: Iterable[bytes] = (), ignored_cookies: IgnoredCookies | None = None
    ) -> None:
        self._credentials = CREDENTIALS.union(credentials)
        self._names = self._credentials | _OF_ONE_CLIENT | PRECONDITIONS | DIRECTIVES | BODY
        self.ignored_cookies = ignored_cookies
        # Those of which the values count too.
        self._by_value = _LENGTH if ignored_cookies is None else _LENGTH | _COOKIE
        self.known: dict[tuple[bytes, ...], tuple[Special | None, int]] = {}
        self._kept: dict[frozenset[bytes], Special] = {}
        self._kept_with_body: dict[frozenset[bytes], Special] = {}

    def of(self, headers: list[tuple[bytes, bytes]]) -> tuple[Special | None, int]:
        """What the special ones of these fields mean, None where there is none that counts.

        And the place of Host.
        """
        sequence = tuple([name for name, _ in headers])
        names = self._names.intersection(sequence)
        special = self._of(names, dict(headers), headers) if names else None
        host_at = sequence.index(b"host") if b"host" in sequence else NO_HOST
        if sequence.count(b"host") > 1:
            host_at = SEVERAL_HOSTS
        if self._by_value.isdisjoint(names):
            self._remember(sequence, (special, host_at))
        return special, host_at

    def _remember(self, sequence: tuple[bytes, ...], meaning: tuple[Special | None, int]) -> None:
        if sum(map(len, sequence)) <= self.SEQUENCE_BYTES_MAX:
            if len(self.known) >= self.KEPT_MAX:
                self.known.clear()
            self.known[sequence] = meaning

    def _of(
        self,
        names: frozenset[bytes],
        fields: dict[bytes, bytes],
        headers: list[tuple[bytes, bytes]],
    ) -> Special | None:
        # Of several lines of Cookie `fields` has but the last.
        if (
            self.ignored_cookies is not None
            and b"cookie" in names
            and self.ignored_cookies.are_all_of(
                value for name, value in headers if name == b"cookie"
            )
        ):
            names -= _COOKIE
            if not names:
                return None
        has_body = b"transfer-encoding" in names or (
            b"content-length" in names and fields[b"content-length"] != b"0"
        )
        kept = self._kept_with_body if has_body else self._kept
        known = kept.get(names)
        if known is None:
            known = Special.of(names, self._credentials, has_body=has_body)
            if len(kept) < self.KEPT_MAX:
                kept[names] = known
        return known

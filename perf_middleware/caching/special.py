"""The request fields that take more than a look-up, and what each set of them means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from perf_middleware.caching.fields import CREDENTIALS
from perf_middleware.caching.judgement import credentials_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.caching.cookies import IgnoredCookies

CONDITIONAL: Final = frozenset({b"if-none-match", b"if-modified-since"})
PRECONDITIONS: Final = frozenset({b"if-match", b"if-unmodified-since"})
PARTIAL: Final = frozenset({b"range", b"if-range"})
DIRECTIVES: Final = frozenset({b"cache-control", b"pragma"})
BODY: Final = frozenset({b"content-length", b"transfer-encoding"})

_OF_ONE_CLIENT: Final = CONDITIONAL | PARTIAL
_COOKIE: Final = frozenset({b"cookie"})


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
    reasons: dict[str, str] = field(default_factory=dict)
    """`reason` as Cache-Status tells it, by the name of the rule that holds."""

    def reason_under(self, rule: str) -> str:
        found = self.reasons.get(rule)
        if found is None:
            found = self.reasons[rule] = f"{rule}; {self.reason}"
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

    `credentials` say who asks, beside those in CREDENTIALS.  A request that has none of `names` is
    the fast case.
    """

    KEPT_MAX: Final = 1_000  # sets of fields whose meaning is remembered

    def __init__(
        self, *, credentials: Iterable[bytes] = (), ignored_cookies: IgnoredCookies | None = None
    ) -> None:
        self._credentials = CREDENTIALS.union(credentials)
        self.names = self._credentials | _OF_ONE_CLIENT | PRECONDITIONS | DIRECTIVES | BODY
        self.ignored_cookies = ignored_cookies
        self._kept: dict[frozenset[bytes], Special] = {}
        self._kept_with_body: dict[frozenset[bytes], Special] = {}

    def of(self, fields: dict[bytes, bytes], headers: list[tuple[bytes, bytes]]) -> Special | None:
        """What the special ones of these fields mean; None where there is none that counts."""
        names = self.names.intersection(fields)
        if not names:
            return None
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

"""The Cache-Status field: what the cache did with a request, and why (RFC 9211).

Cache-Status: perf_middleware; hit; ttl=43
Cache-Status: perf_middleware; fwd=uri-miss; stored
Cache-Status: perf_middleware; fwd=bypass; detail="credentials: cookie"
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeAlias

from perf_middleware.caching.syntax.lists import is_token
from perf_middleware.caching.syntax.structured import quoted

NAME: Final = b"cache-status"

Tail: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""The fields that a hit adds to those stored: no list, for many answers have the same."""

Forward: TypeAlias = Literal["bypass", "uri-miss", "vary-miss", "miss", "request", "stale"]
"""Why a request went on to the app (RFC 9211 §2.2)."""

DETAIL_CHARS_MAX: Final = 200
NO_FRESHNESS: Final = "no-freshness"
"""The detail of an answer that says nothing of being stored."""


class CacheStatus:
    """Writes the field for one cache; every combination is written once and kept.

    `cache` names it among the caches that an answer may have passed: a token, else a string (§2).
    Raises ValueError for what is not printable ASCII.
    """

    KEPT_MAX: Final = 1_000
    TAILS_MAX: Final = 500  # about 400 bytes each, which no store accounts for; then it starts anew

    def __init__(self, cache: str) -> None:
        name = quoted(cache)
        self._cache = name[1:-1] if cache[:1].isalpha() and is_token(name[1:-1]) else name
        self._fields: dict[tuple[str, bool, str | None], tuple[bytes, bytes]] = {}
        self._kept: dict[tuple[str, int | None, bool, bool, str | None], bytes] = {}
        self._tails: dict[tuple[int, int, str | None], Tail] = {}
        self.silent_miss = self.forwarded("uri-miss", stored=False, detail=NO_FRESHNESS)
        """The field of most answers: they say nothing of being stored."""

    def hit(self, *, ttl_s: int, detail: str | None = None) -> bytes:
        """An answer from the store; `ttl_s` is negative where it is stale (§2.1, §2.4)."""
        value = b"%b; hit; ttl=%d" % (self._cache, ttl_s)
        return value if detail is None else value + _detail(detail)

    def hit_tail(self, age_s: int, ttl_s: int, detail: str | None) -> Tail:
        """Age and this field, as a hit adds them: the same object for all that are as old."""
        key = (age_s, ttl_s, detail)
        tail = self._tails.get(key)
        if tail is None:
            if len(self._tails) >= self.TAILS_MAX:
                self._tails.clear()
            field = (NAME, self.hit(ttl_s=ttl_s, detail=detail))
            tail = self._tails[key] = (*age_alone(age_s), field)
        return tail

    def forwarded(
        self, reason: Forward, *, stored: bool, detail: str | None
    ) -> tuple[bytes, bytes]:
        """The whole field of an answer that came straight from the app."""
        key = (reason, stored, detail)
        field = self._fields.get(key)
        if field is None:
            field = (NAME, self.forward(reason, stored=stored, detail=detail))
            if len(self._fields) < self.KEPT_MAX:
                self._fields[key] = field
        return field

    def unasked(self, detail: str) -> bytes:
        """An answer of the cache's own that is no stored response: nothing was forwarded (§2)."""
        return self._cache + _detail(detail)

    def forward(
        self,
        reason: Forward,
        *,
        status: int | None = None,
        stored: bool = False,
        collapsed: bool = False,
        detail: str | None = None,
    ) -> bytes:
        """An answer for which the app was asked; `status` is the app's where ours differs."""
        key = (reason, status, stored, collapsed, detail)
        value = self._kept.get(key)
        if value is None:
            parts = [self._cache, b"fwd=" + reason.encode()]
            if status is not None:
                parts.append(b"fwd-status=%d" % status)
            if stored:
                parts.append(b"stored")
            if collapsed:
                parts.append(b"collapsed")
            value = b"; ".join(parts)
            if detail is not None:
                value += _detail(detail)
            if len(self._kept) < self.KEPT_MAX:
                self._kept[key] = value
        return value


# Shared by all apps of the process, as re's cache of patterns is: it holds nothing of theirs.
@lru_cache(maxsize=CacheStatus.TAILS_MAX)
def age_alone(age_s: int) -> Tail:
    """Age in whole seconds: all that a hit adds where Cache-Status is not shown (RFC 9111 §5.1)."""
    return ((b"age", b"%d" % age_s),)


@lru_cache(maxsize=1_000)
def _detail(text: str) -> bytes:
    printable = "".join(char if " " <= char <= "~" else "?" for char in text[:DETAIL_CHARS_MAX])
    return b"; detail=" + quoted(printable)

"""How long a response stays fresh, and how old it is (RFC 9111 §4.2).

           Date      request_time    response_time                  now
    origin --+------------|---------------|--------------------------|----> time
             |<----- apparent age ------->|<----- resident time ---->|
                          |<-- delay ---->|
             |<--------- initial age ---->|
             |<------------------- current age --------------------->|
             |<------ freshness lifetime ------>|  fresh  |  stale ...

Seconds from header fields are Unix seconds; resident time is measured on the monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.caching.stored import US_PER_S
from perf_middleware.caching.syntax.dates import parse_http_date
from perf_middleware.caching.syntax.directives import (
    DELTA_SECONDS_MAX,
    NO_DIRECTIVES,
    ResponseDirectives,
    parse_delta_seconds,
    parse_response_directives,
    parse_targeted,
)
from perf_middleware.caching.syntax.lists import members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.caching.fields import Lines

HEURISTIC_SHARE: Final = 0.1  # of the time since the last modification (RFC 9111 §4.2.2)
HEURISTIC_S_MAX: Final = 86_400
HEURISTIC_STATUSES: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Cacheable without being told (RFC 9110 §15.1); 206 is, too, but we never store it."""


def directives_of(lines: Lines, targeted: Sequence[bytes] = ()) -> tuple[ResponseDirectives, bool]:
    """The directives that hold for this cache, and whether a targeted field gave them.

    The first of the `targeted` fields that is valid wins over Cache-Control, and then over
    Expires too.  Source: RFC 9213 §2.2.
    """
    for name in targeted:
        values = lines.get(name)
        if values:
            found = parse_targeted(values)
            if found is not None:
                return found, True
    values = lines.get(b"cache-control")
    return (parse_response_directives(values) if values else NO_DIRECTIVES), False


def freshness_lifetime_s(
    directives: ResponseDirectives, lines: Lines, *, targeted: bool, date_s: int
) -> int | None:
    """Seconds that a shared cache may take the response for fresh, None where it is not said.

    First match wins: s-maxage, max-age, Expires minus Date: negative where it has expired before
    it was sent, 0 where Expires is broken.
    `date_s` is the Date field, or the time of receipt without one.  Source: RFC 9111 §4.2.1.
    """
    if directives.s_maxage is not None:
        return directives.s_maxage
    if directives.max_age is not None:
        return directives.max_age
    expires = lines.get(b"expires")
    if not expires or targeted:
        return None
    expires_s = parse_http_date(expires[0], now_s=date_s)
    if expires_s is None:
        return 0  # invalid, as `Expires: 0`: already expired (§5.3)
    # Of several that differ the first may count, but not make it fresh (§4.2.1).
    agreed = all(other == expires[0] for other in expires)
    lifetime_s = min(expires_s - date_s, DELTA_SECONDS_MAX if agreed else 0)
    return max(-DELTA_SECONDS_MAX, lifetime_s)


def heuristic_lifetime_s(status: int, lines: Lines, *, date_s: int) -> int | None:
    """A tenth of the response's age since its last modification, at most a day (RFC 9111 §4.2.2).

    None for a status that needs explicit freshness, or without a Last-Modified in the past.
    """
    values = lines.get(b"last-modified")
    if not values or status not in HEURISTIC_STATUSES:
        return None
    modified_s = parse_http_date(values[0], now_s=date_s)
    if modified_s is None or modified_s > date_s:
        return None
    return min(int((date_s - modified_s) * HEURISTIC_SHARE), HEURISTIC_S_MAX)


def date_s_of(lines: Lines, *, now_s: int) -> int:
    """The Date field, or `now_s` where it is missing or broken (RFC 9110 §6.6.1)."""
    values = lines.get(b"date")
    if not values:
        return now_s
    date_s = parse_http_date(values[0], now_s=now_s)
    return now_s if date_s is None else date_s


def initial_age_us(lines: Lines, *, date_s: int, response_us: int, delay_us: int) -> int:
    """The corrected initial age: the larger of apparent age, and Age plus the time of the request.

    Of several Age values the first counts; one that is no number is ignored.
    Source: RFC 9111 §4.2.3, §5.1.
    """
    age_s = 0
    values = members(lines.get(b"age", ()))
    if values:
        age_s = (parse_delta_seconds(values[0]) or 0) if values[0].isdigit() else 0
    return max(0, response_us - date_s * US_PER_S, age_s * US_PER_S + delay_us)

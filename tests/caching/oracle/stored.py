"""A stored response as its sources make it: its head after updates, its age and its lifetime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.caching.oracle.fields import (
    connection_fields,
    delta_seconds,
    http_date,
    lines,
    members,
    response_directives,
)

if TYPE_CHECKING:
    from tests.caching.oracle.exchanges import Exchanged, Headers


def merged(sources: list[Exchanged]) -> Headers:
    """The head of a stored response after its updates (RFC 9111 §3.2)."""
    hop = connection_fields(sources[0].headers)
    head = [(name.lower(), value) for name, value in sources[0].headers if name.lower() not in hop]
    for update in sources[1:]:
        rules, _ = response_directives(update.headers)
        kept_out = connection_fields(update.headers) | {b"content-length"}
        kept_out |= rules.fields(b"private") | rules.fields(b"no-cache")
        new = [(name.lower(), value) for name, value in update.headers]
        new = [(name, value) for name, value in new if name not in kept_out]
        replaced = {name for name, _ in new}
        head = [(name, value) for name, value in head if name not in replaced] + new
    return head


def freshness_readings(stored: list[Exchanged], now_s: float) -> list[tuple[int, float]]:
    """(freshness lifetime, current age) for each way to read Date and Age (RFC 9111 §4.2).

    With the response's own Age `a`, asked for at `t` and dated `d`, the sections 4.2.1 to 4.2.3
    come to: current age = max(a + now - t, now - d, 0).
    Without a Date the time of receipt stands for it, in the whole seconds that a cache can write.
    """
    last, head = stored[-1], merged(stored)
    finished_s = last.at_s if last.finished_s is None else last.finished_s
    named, other = _dates(stored)
    readings = []
    for age_s in _ages(stored):
        resident_s = max(age_s + now_s - last.at_s, 0)
        readings += [
            (_lifetime_s(head, date_s, now_s), max(resident_s, now_s - date_s)) for date_s in named
        ]
        if other:
            readings += [
                (_lifetime_s(head, int(received_s), now_s), resident_s)
                for received_s in (last.at_s, finished_s)
            ]
    return readings


def _dates(stored: list[Exchanged]) -> tuple[set[int], bool]:
    """The dates that it may be said to name; may the time of receipt be taken instead?"""
    last = stored[-1]
    named = [http_date(value, last.at_s) for value in lines(last.headers, b"date")]
    dates = {date for date in named if date is not None}
    if len(named) == len(dates) == 1:
        return dates, False
    if not named and len(stored) > 1:
        dates |= _dates(stored[:-1])[0]
    return dates, True


def _ages(stored: list[Exchanged]) -> set[int]:
    """The first member of Age counts, one that is no number does not (RFC 9111 §5.1)."""
    named = members(stored[-1].headers, b"age")
    if len(named) == 1:
        return {delta_seconds(named[0]) or 0}
    if named:
        return {delta_seconds(each) or 0 for each in named} | {0}
    return {0} | (_ages(stored[:-1]) if len(stored) > 1 else set())


def _lifetime_s(head: Headers, date_s: int, now_s: float) -> int:
    """RFC 9111 §4.2.1, for a shared cache; what is invalid or absent makes it 0."""
    rules, targeted = response_directives(head)
    for name in (b"s-maxage", b"max-age"):
        seconds = rules.seconds(name)
        if seconds is not None:
            return seconds
    expires = lines(head, b"expires")
    if targeted or not expires:
        return 0
    expires_s = http_date(expires[0], now_s)
    return 0 if expires_s is None else expires_s - date_s

"""May a stored response be used without asking the app?  (RFC 9111 §4.2, §4.4, §5.2; RFC 5861)"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from tests.caching.oracle.fields import (
    Directives,
    delta_seconds,
    lines,
    request_directives,
    response_directives,
)
from tests.caching.oracle.stored import freshness_readings, merged

if TYPE_CHECKING:
    from tests.caching.oracle.exchanges import Exchanged, Headers, Served

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True)
class House:
    """What we promise on top of the RFCs."""

    guards_credentials: bool = True
    keeps_set_cookie_private: bool = True
    honours_the_client: bool = True
    """Request directives are advisory (RFC 9111 §5.2.1); a client may count on ours."""
    invalidates_locations: bool = True
    """Location and Content-Location of the same origin: MAY in RFC 9111 §4.4, MUST here."""
    needs_explicit_freshness: bool = True


OUR_HOUSE = House()


def not_reusable_as_it_is(
    stored: list[Exchanged], served: Served, history: list[Exchanged], house: House
) -> list[str]:
    head = merged(stored)
    rules, targeted = response_directives(head)
    faults = []
    if rules.restricts(b"no-cache") and rules.whole(b"no-cache"):
        faults.append("served a response marked no-cache without asking the app")
    if house.needs_explicit_freshness and not _says_its_freshness(head, rules, targeted):
        faults.append("reused a response that names no freshness")
    readings = freshness_readings(stored, served.at_s)
    asked = request_directives(served.request_headers)
    readings = [(lifetime_s, math.floor(age_s)) for lifetime_s, age_s in readings]
    stale_s = min(age_s - lifetime_s for lifetime_s, age_s in readings)
    if stale_s >= 0:  # fresh is: freshness lifetime > current age
        faults += _stale(stale_s, rules, asked, stored, served, history)
    if house.honours_the_client:
        faults += _against_the_client(readings, asked, served)
    faults += _invalidated(stored, served, history, house)
    return faults


def _says_its_freshness(head: Headers, rules: Directives, targeted: bool) -> bool:
    return (
        rules.grants(b"max-age")
        or rules.grants(b"s-maxage")
        or (not targeted and bool(lines(head, b"expires")))
    )


def _stale(
    stale_s: int,
    rules: Directives,
    asked: Directives,
    stored: list[Exchanged],
    served: Served,
    history: list[Exchanged],
) -> list[str]:
    """RFC 9111 §4.2.4 and RFC 5861."""
    for name in (b"must-revalidate", b"proxy-revalidate", b"s-maxage"):
        if rules.restricts(name):
            return [f"served a stale response marked {name.decode()}"]
    if asked.grants(b"max-stale"):
        arguments = asked.named[b"max-stale"]
        if None in arguments or stale_s <= max(delta_seconds(each) or 0 for each in arguments):
            return []
    if stale_s <= (rules.seconds(b"stale-while-revalidate") or -1):
        return []
    on_error_s = max(rules.seconds(b"stale-if-error") or -1, asked.seconds(b"stale-if-error") or -1)
    if stale_s <= on_error_s and _app_failed(stored, served, history):
        return []
    reason = (
        "served a stale response beyond stale-while-revalidate"
        if rules.grants(b"stale-while-revalidate")
        else "served a stale response without an error of the app"
        if on_error_s >= stale_s
        else "served a stale response"
    )
    return [f"{reason} ({stale_s} s)"]


def _app_failed(stored: list[Exchanged], served: Served, history: list[Exchanged]) -> bool:
    return any(
        each.failed and each.target == served.target and each.began > stored[-1].began
        for each in history[stored[-1].number + 1 :]
    )


def _against_the_client(
    readings: list[tuple[int, int]], asked: Directives, served: Served
) -> list[str]:
    """The request directives of RFC 9111 §5.2.1, where they are said clearly."""
    faults = []
    if says_clearly(served.request_headers, b"no-cache"):
        faults.append("answered no-cache without asking the app")
    if not asked.grants(b"max-stale"):
        ages = [delta_seconds(each) for each in asked.named.get(b"max-age", ())]
        if ages and None not in ages and min(age for _, age in readings) > max(ages):
            faults.append("served a response older than the client's max-age")
        left = [delta_seconds(each) for each in asked.named.get(b"min-fresh", ())]
        best = max(lifetime - age for lifetime, age in readings)
        if left and None not in left and best < min(left):
            faults.append("served a response that is not fresh for the client's min-fresh")
    return faults


def _invalidated(
    stored: list[Exchanged], served: Served, history: list[Exchanged], house: House
) -> list[str]:
    """RFC 9111 §4.4: after a non-error answer to an unsafe method nothing older may be used."""
    newest = max(each.ended or served.began for each in stored)
    for write in reversed(history):
        if (
            write.method not in SAFE_METHODS
            and write.status is not None
            and 200 <= write.status < 400
            and write.ended is not None
            and newest < write.began
            and write.ended < served.began
        ):
            if write.target == served.target:
                return [f"served an entry that a {write.method} invalidated"]
            if house.invalidates_locations and any(
                same_target(write, location, served)
                for name in (b"location", b"content-location")
                for location in _one(lines(write.headers, name))
            ):
                return [f"served an entry that a {write.method} invalidated by its location"]
    return []


def _one(values: list[bytes]) -> list[bytes]:
    """Only a single, plain reference is one that every cache must read."""
    return [value for value in values if len(values) == 1 and re.fullmatch(rb"[!-~]+", value)]


def same_target(write: Exchanged, location: bytes, served: Served | None = None) -> bool:
    """Does `location`, relative to what was written to, name the target of `served`?"""
    wanted = write.target if served is None else served.target
    home = _uri(write.target)
    try:
        there = urljoin(home, location.decode("latin-1"))
    except ValueError:
        return False
    same_origin = there.startswith(home[: home.index("/", 8) + 1])
    return same_origin and there.partition("#")[0] == _uri(wanted)


def _uri(target) -> str:
    scheme, host, path = target
    return f"{scheme}://{host.decode('latin-1').lower()}{path.decode('latin-1')}"


def says_clearly(headers: Headers, name: bytes) -> bool:
    """The request says `name` in a way that cannot be misread."""
    return any(
        part.strip(b" \t").lower() == name
        for line in lines(headers, b"cache-control")
        if b'"' not in line
        for part in line.split(b",")
    )

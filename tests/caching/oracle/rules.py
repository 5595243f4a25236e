"""The oracle: what a shared cache must not do, said in sentences.

It accepts every safe choice: not storing, asking the app, a 200 in place of a 304.  It says only
what is unsafe or breaks the protocol.  Where a message can be read in two ways, a fault is one that
every reading has.  Sources: RFC 9110, 9111, 5861, 9213 and, for the house rules, our own promises.

    unsafe -> passed on from its own call?   shapes.py: is it what the app said?
           -> made of others' answers?       here: may they be reused for this request?
                                             shapes.py: is it a right form of them?
"""

from __future__ import annotations

import re

from tests.caching.oracle import shapes
from tests.caching.oracle.derived import unsatisfiable
from tests.caching.oracle.exchanges import Exchanged, Headers, Served, traced
from tests.caching.oracle.fields import (
    TOKEN,
    lines,
    members,
    request_directives,
    response_directives,
    strongly_equal,
    tags,
    weak,
)
from tests.caching.oracle.reuse import (
    OUR_HOUSE,
    House,
    not_reusable_as_it_is,
    same_target,
    says_clearly,
)
from tests.caching.oracle.stored import merged

CREDENTIALS = frozenset(
    {b"cookie", b"authorization", b"proxy-authorization", b"x-api-key", b"x-auth-token"}
)
# What a cache that knows RFC 9110 may say it understands (must-understand, RFC 9111 §5.2.2.3).
UNDERSTOOD = frozenset(
    {200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 413, 414, 421, 451, 500, 501, 502,
     503, 504, 400, 401, 402, 403, 406, 407, 408, 409, 411, 415, 417, 418, 422, 426, 201, 202, 205,
     505, 305}
)  # fmt: skip


def unsafe(
    served: Served, history: list[Exchanged], now_s: float, house: House = OUR_HOUSE
) -> list[str]:
    """What is wrong with `served`, whose head was sent at `now_s`; [] where nothing is.

    `history` is all that the app ever answered, in order of their numbers.
    """
    sources = traced(served, history)
    if served.status is None:
        return shapes.silence(served, history)
    if not sources:
        return _of_the_cache_alone(served, history, now_s, house)
    strangers = [each for each in sources if each.number not in served.app_calls]
    faults = shapes.protocol(served, sources)
    faults += _asked_in_spite_of_only_if_cached(served, strangers, house)
    if not strangers:
        return faults + shapes.first_hand(served, sources, now_s)
    base = sources[0]
    if not all(each.renews for each in sources[1:]):
        return [*faults, "made of two answers of which none renews the other"]
    faults += _not_storable(strangers, served, house)
    faults += _not_for_this_request(strangers, sources, served)
    faults += _not_rightly_renewed(sources)
    if len(strangers) == len(sources):
        faults += not_reusable_as_it_is(strangers, served, history, house)
    if house.guards_credentials:
        faults += _credentials_shared(strangers, served)
    if house.keeps_set_cookie_private and lines(base.headers, b"set-cookie"):
        faults.append("Set-Cookie shared: the answer was made for one client")
    return faults + shapes.of_stored(served, sources, strangers, now_s)


# --- answers without the app ---------------------------------------------------------------------


def _of_the_cache_alone(
    served: Served, history: list[Exchanged], now_s: float, house: House
) -> list[str]:
    if served.status == 504 and _only_if_cached(served):
        return shapes.protocol(served)
    if served.status == 416:
        if any(
            not _why_not_from(stored, served, history, now_s, house)
            and unsatisfiable(served, stored)
            for stored in history
        ):
            return shapes.protocol(served)
        return ["416 for a range of a response that it must not use, or that can be satisfied"]
    return [f"a {served.status} that no answer of the app explains"]


def _why_not_from(
    stored: Exchanged, served: Served, history: list[Exchanged], now_s: float, house: House
) -> list[str]:
    """What forbids to answer `served`'s request from this one alone."""
    faults = _not_for_this_request([stored], [stored], served)
    if faults:
        return faults
    if stored.number not in served.app_calls:
        faults += _not_storable([stored], served, house)
        faults += not_reusable_as_it_is([stored], served, history, house)
        if house.guards_credentials:
            faults += _credentials_shared([stored], served)
    return faults


def _only_if_cached(served: Served) -> bool:
    return request_directives(served.request_headers).grants(b"only-if-cached")


def _asked_in_spite_of_only_if_cached(
    served: Served, strangers: list[Exchanged], house: House
) -> list[str]:
    """RFC 9111 §5.2.1.7: a stored response or a 504."""
    values = lines(served.request_headers, b"cache-control")
    plain = any(value.lower() == b"only-if-cached" for value in values)
    only_own = not strangers and served.method in {"GET", "HEAD"}
    if house.honours_the_client and plain and len(values) == 1 and only_own:
        return ["asked the app in spite of only-if-cached"]
    return []


# --- storing (RFC 9111 §3) -----------------------------------------------------------------------


def _not_storable(strangers: list[Exchanged], served: Served, house: House) -> list[str]:
    base, head = strangers[0], merged(strangers)
    rules, _ = response_directives(head)
    faults = []
    if not base.complete:
        if served.complete and served.raised is None:
            faults.append("served an incomplete answer of the app as a whole one")
        elif base.ended is not None and base.ended < served.began:
            faults.append("stored an incomplete answer of the app")
    if rules.restricts(b"no-store") and not (
        rules.grants(b"must-understand") and base.status in UNDERSTOOD
    ):
        faults.append("served a response marked no-store")
    if rules.whole(b"private") and rules.restricts(b"private"):
        faults.append("served a private response to another")
    if rules.grants(b"must-understand") and base.status not in UNDERSTOOD:
        faults.append(f"stored a {base.status} marked must-understand")
    if base.status in {206, 304, 412, 416}:
        faults.append(f"reused a {base.status}, the answer to one request's conditions or ranges")
    for each in strangers:
        if house.honours_the_client and says_clearly(each.request_headers, b"no-store"):
            faults.append("stored the answer to a request with no-store")
        if lines(each.request_headers, b"authorization") and not (
            rules.grants(b"public") or rules.grants(b"s-maxage") or rules.grants(b"must-revalidate")
        ):
            faults.append("stored the answer to a request with Authorization")
    return faults


# --- selecting (RFC 9111 §4, §4.1) ---------------------------------------------------------------


def _not_for_this_request(
    strangers: list[Exchanged], sources: list[Exchanged], served: Served
) -> list[str]:
    base = strangers[0]
    faults = []
    if any(each.target != served.target for each in strangers):
        faults.append("served the answer of another target")
    if not _method_fits(base, served):
        faults.append(f"answered {served.method} with what {base.method} got")
    # The base was selected for this request, or a 304 said that it serves one like it.
    if not any(vary_matches(merged(strangers), each, served) for each in strangers):
        chosen_by_the_app = len(sources) > len(strangers) and _names_the_tag_of(sources[-1], base)
        if not chosen_by_the_app:
            named = b", ".join(lines(merged(strangers), b"vary")).decode("latin-1")[:80]
            faults.append(f"served although Vary: {named} differs")
    return faults


def _method_fits(base: Exchanged, served: Served) -> bool:
    if base.method == "POST" and served.method in {"GET", "HEAD"}:  # RFC 9110 §9.3.3
        return any(
            same_target(base, location) for location in lines(base.headers, b"content-location")
        )
    return (base.method, served.method) in {("GET", "GET"), ("GET", "HEAD"), ("HEAD", "HEAD")}


def vary_matches(head: Headers, stored: Exchanged, served: Served) -> bool:
    """RFC 9111 §4.1.  A Vary that is not understood matches nothing."""
    for name in members(head, b"vary"):
        if name == b"*" or not TOKEN.match(name):
            return False
        if _normal(stored.request_headers, name) != _normal(served.request_headers, name):
            return False
    return True


def _normal(headers: Headers, name: bytes) -> object:
    """A field as one value; where order, case and q=1 say nothing, without them."""
    values = lines(headers, name)
    if not values:
        return None
    joined = b",".join(values)
    if name not in {b"accept", b"accept-language", b"accept-encoding", b"accept-charset"}:
        return re.sub(rb"[ \t]*,[ \t]*", b",", joined)
    parts = re.sub(rb"[ \t]", b"", joined).lower().split(b",")
    return frozenset(re.sub(rb";q=1(\.0*)?\Z", b"", part) for part in parts if part)


def _credentials_shared(strangers: list[Exchanged], served: Served) -> list[str]:
    """House: only where Vary names every credential of both requests, and the values are equal."""
    named = set(members(merged(strangers), b"vary"))
    asked = served.request_headers
    for each in strangers:
        made_for = each.request_headers
        carried = {name.lower() for name, _ in [*asked, *made_for]} & CREDENTIALS
        for name in sorted(carried):
            if name not in named or lines(asked, name) != lines(made_for, name):
                return [f"credentials shared: {name.decode()}"]
    return []


# --- renewing (RFC 9111 §4.3.4, §4.3.5) ----------------------------------------------------------


def _not_rightly_renewed(sources: list[Exchanged]) -> list[str]:
    faults = []
    for place, update in enumerate(sources[1:], 1):
        head = merged(sources[:place])
        if update.target != sources[0].target:
            faults.append("renewed by the answer for another target")
        elif update.status == 304 and not _selects(update, head):
            faults.append("renewed by a 304 with another validator")
        elif update.status != 304 and not _head_agrees(update, sources[0], head):
            faults.append("renewed by a HEAD with another validator, length or status")
    return faults


def _selects(update: Exchanged, head: Headers) -> bool:
    """Does this 304 speak of the response with this head?"""
    tag, modified = lines(head, b"etag"), lines(head, b"last-modified")
    if new := lines(update.headers, b"etag"):
        if new[0].startswith(b"W/"):
            return weak(new[0]) in [weak(each) for each in tag]
        return any(strongly_equal(new[0], each) for each in tag)
    if new := lines(update.headers, b"last-modified"):
        return new[:1] == modified[:1]
    if not tag and not modified:
        return True
    # It names no validator: then it answers the one that the request named.
    asked = tags(update.request_headers, b"if-none-match")
    if asked:
        return len(asked) == 1 and weak(asked[0]) in [weak(each) for each in tag]
    return lines(update.request_headers, b"if-modified-since")[:1] == modified[:1] != []


def _head_agrees(update: Exchanged, base: Exchanged, head: Headers) -> bool:
    same = all(
        lines(update.headers, name)[:1] == lines(head, name)[:1]
        for name in (b"etag", b"last-modified")
        if lines(update.headers, name)
    )
    lengths = lines(update.headers, b"content-length")
    fits = base.method == "HEAD" or lengths in ([], [b"%d" % len(base.body)])
    return same and fits and update.status == 200 == base.status


def _names_the_tag_of(update: Exchanged, base: Exchanged) -> bool:
    new = lines(update.headers, b"etag")
    return update.status == 304 and bool(new) and new == lines(base.headers, b"etag")

"""The form of an answer: is it what the app said, or a right 304, 206, 416 or HEAD of it?"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from tests.caching.oracle.derived import derived_faults
from tests.caching.oracle.fields import (
    DELTA_SECONDS_MAX,
    lines,
    tags,
    weak,
)
from tests.caching.oracle.heads import head_faults
from tests.caching.oracle.stored import freshness_readings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.caching.oracle.exchanges import Exchanged, Headers, Served

NO_BODY = frozenset({204, 205, 304})
ROUNDING_S = 1
"""Ages are whole seconds of two clocks that may be read a moment apart."""


def protocol(served: Served, sources: Sequence[Exchanged] = ()) -> list[str]:
    """What no answer may have, wherever it is from."""
    faults = list(served.disorder)
    if served.raised is not None and type(served.raised).__name__ != "AppError":
        faults.append(f"raised {served.raised!r}")
    if served.raised is None and not served.complete and not served.cut:
        faults.append("never ended the answer")
    if served.status == 304 and not _asks_a_condition(served.request_headers):
        # An app may send one unasked; then it saw no condition either.
        unasked = any(
            each.status == 304
            and each.number in served.app_calls
            and not _asks_a_condition(each.request_headers)
            for each in sources
        )
        if not unasked:
            faults.append("304 to a request without a condition")
    if len(lines(served.headers, b"age")) > 1 and not served.app_calls:
        faults.append("several Age fields")
    return faults


def silence(served: Served, history: list[Exchanged]) -> list[str]:
    """No head was sent: only because the app raised, for this request or one it waited for."""
    if served.cut:
        return []
    if served.raised is None:
        return ["no answer at all"]
    if type(served.raised).__name__ != "AppError":
        return [f"raised {served.raised!r}"]
    if any(each.raised and each.target == served.target for each in history):
        return []
    return ["raised an error that no call of the app explains"]


def _asks_a_condition(headers: Headers) -> bool:
    names = {name.lower() for name, _ in headers}
    return bool(names & {b"if-none-match", b"if-modified-since"})


# --- from its own call of the app ----------------------------------------------------------------


def first_hand(served: Served, sources: list[Exchanged], now_s: float) -> list[str]:
    """A call of the app for this very request: what it said, or a form of it."""
    base = sources[0]
    faults = _cache_status(served, reused=False)
    if served.request_body != base.request_body and base.method == served.method:
        faults.append("the app got another request body")
    faults += _request_changed(served, base)
    if base.status == 304 == served.status:
        faults += _others_condition(served, base)
    if served.status == base.status and len(sources) == 1:
        faults += head_faults(served, sources, stored=False)
        if served.others != base.others and not served.cut:
            faults.append("lost or invented an interim or extension message")
        if base.method == served.method or served.method != "HEAD":
            faults += _body_of(served, base)
        elif served.body:
            faults.append("a body for HEAD")
        if served.trailers != base.trailers and not served.cut:
            faults.append("lost or changed trailers")
        if base.raised and served.raised is None and served.complete:
            faults.append("hid that the app broke off")
        return faults
    return faults + derived_faults(served, sources)


def _body_of(served: Served, base: Exchanged) -> list[str]:
    if served.cut or served.raised is not None:
        return [] if base.body.startswith(served.body) else ["the body is not the app's"]
    return [] if served.body == base.body else ["the body is not the app's"]


def _others_condition(served: Served, base: Exchanged) -> list[str]:
    """A 304 to what the cache asked for itself says nothing of the client's copy."""
    name = b"if-none-match"
    asked, seen = tags(served.request_headers, name), tags(base.request_headers, name)
    if not any(lines(base.request_headers, each) for each in (name, b"if-modified-since")):
        return []  # the app said it without being asked anything
    told = [weak(tag) for tag in lines(base.headers, b"etag")]
    mine = [weak(tag) for tag in asked]
    if asked and asked != seen and not any(tag in mine for tag in told):
        return ["304 to the cache's condition, not to the client's"]
    return []


_CONDITIONS = frozenset(
    {b"if-none-match", b"if-modified-since", b"if-range", b"range", b"content-length"}
)


def _request_changed(served: Served, base: Exchanged) -> list[str]:
    sent, seen = (
        [(name.lower(), value) for name, value in headers if name.lower() not in _CONDITIONS]
        for headers in (served.request_headers, base.request_headers)
    )
    return [] if sorted(sent) == sorted(seen) else ["the app saw other request fields"]


# --- from stored responses -----------------------------------------------------------------------


def of_stored(
    served: Served, sources: list[Exchanged], strangers: list[Exchanged], now_s: float
) -> list[str]:
    """An answer made of what other requests got, perhaps renewed by this one's 304."""
    base = sources[0]
    validated = len(strangers) < len(sources)
    faults = _cache_status(served, reused=not validated)
    faults += _age(served, sources, now_s, needed=not validated)
    if served.others and not validated:  # a call of its own may have sent some
        faults.append("gave another request's interim message")
    if served.status == base.status:
        faults += head_faults(served, sources, stored=True)
        faults += _full(served, base)
    else:
        faults += derived_faults(served, sources)
    return faults


def _full(served: Served, base: Exchanged) -> list[str]:
    faults = []
    if served.method == "HEAD":
        if served.body:
            faults.append("a body for HEAD")
    else:
        faults += _body_of(served, base)
        if base.status in NO_BODY and served.body and not base.body:
            faults.append(f"{base.status} with a body")
    if served.trailers not in (None, [], base.trailers):
        faults.append("changed trailers")
    return faults + _content_length(served, base)


def _content_length(served: Served, base: Exchanged) -> list[str]:
    lengths = lines(served.headers, b"content-length")
    if not lengths or base.method == "HEAD":  # then only the app knows
        return []
    size = len(base.body) if served.method == "HEAD" else len(served.body)
    if served.cut or served.raised is not None:
        size = len(base.body)
    if lengths != [b"%d" % size]:
        return [f"Content-Length differs from the body: {lengths!r:.60} for {size}"]
    return []


def _age(served: Served, sources: list[Exchanged], now_s: float, *, needed: bool) -> list[str]:
    """RFC 9111 §4, §5.1."""
    values = lines(served.headers, b"age")
    last = sources[-1]
    waited_for = last.finished_s is None or last.ended is None or last.ended >= served.began
    if not values:
        return ["no Age on a stored response"] if needed and not waited_for else []
    if len(values) > 1 or not re.fullmatch(rb"[0-9]{1,12}", values[0]):
        return [f"an Age that is no number: {values!r:.60}"]
    ages = [age for _, age in freshness_readings(sources, now_s)]
    age_s = int(values[0])
    if needed and age_s < min(math.floor(min(ages)), DELTA_SECONDS_MAX):
        return [f"Age lower than the real age: {age_s} < {min(ages):g}"]
    if age_s > math.ceil(max(ages) + last.at_s - last.asked_s) + ROUNDING_S:
        return [f"Age higher than the real age: {age_s} > {max(ages):g}"]
    return []


def _cache_status(served: Served, *, reused: bool) -> list[str]:
    """RFC 9211 §2: the last member is the nearest cache's; it says hit or why it went forward."""
    values = lines(served.headers, b"cache-status")
    if not values:
        return []
    last = values[-1].rsplit(b",", 1)[-1]
    words = [word.strip(b" ").partition(b"=")[0] for word in last.split(b";")]
    if b"hit" in words and b"fwd" in words:
        return ["Cache-Status says hit and fwd"]
    if b"hit" in words and not reused:
        return ["Cache-Status says hit for an answer of the app"]
    return []

"""Field values as the RFCs read them: slow, and the shortest way that is right.

A value that is not well-formed gives what is the safe reading of it, and where it may be read in
two ways the restrictive words count (`restricts`) and the generous ones do not (`grants`).
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.caching.oracle.exchanges import Headers

DELTA_SECONDS_MAX = 2**31
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")

# Section 7.6.1 of RFC 9110 and section 3.1 of RFC 9111.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade",
     b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"}
)  # fmt: skip


def lines(headers: Headers, name: bytes) -> list[bytes]:
    return [_clean(value) for key, value in headers if key.lower() == name]


@lru_cache(4096)
def _clean(value: bytes) -> bytes:
    """CR, LF and NUL are read as spaces (RFC 9110 §5.5)."""
    for bad in (b"\r", b"\n", b"\0"):
        value = value.replace(bad, b" ")
    return value.strip(b" \t")


def members(headers: Headers, name: bytes) -> list[bytes]:
    """The members of a list without quoted strings, lower case."""
    return [
        member.strip(b" \t").lower()
        for line in lines(headers, name)
        for member in line.split(b",")
        if member.strip(b" \t")
    ]


def connection_fields(headers: Headers) -> set[bytes]:
    return set(HOP_BY_HOP) | set(members(headers, b"connection"))


# --- Cache-Control -------------------------------------------------------------------------------


@dataclass(slots=True)
class Directives:
    """The directives of a message: all occurrences of each in order, None for no argument."""

    named: dict[bytes, list[bytes | None]] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)
    """Names seen only behind a quotation mark that never ends."""

    def restricts(self, name: bytes) -> bool:
        return name in self.named or name in self.doubtful

    def grants(self, name: bytes) -> bool:
        return name in self.named

    def seconds(self, name: bytes) -> int | None:
        """Its first occurrence (RFC 9111 §4.2.1); 0 where that is invalid, None where absent."""
        if name not in self.named:
            return None
        value = delta_seconds(self.named[name][0])
        return 0 if value is None else value

    def whole(self, name: bytes) -> bool:
        """It stands there without naming fields, or in a way that may mean so."""
        if name in self.doubtful:
            return True
        return any(not field_names(argument) for argument in self.named.get(name, ()))

    def fields(self, name: bytes) -> set[bytes]:
        """The fields that its qualified form names."""
        arguments = self.named.get(name, ())
        return {each for argument in arguments for each in field_names(argument)}


def delta_seconds(value: bytes | None) -> int | None:
    """RFC 9111 §1.2.2; None where it is none."""
    if not value or not re.fullmatch(rb"[0-9]+", value):
        return None
    digits = value.lstrip(b"0")
    return DELTA_SECONDS_MAX if len(digits) > 10 else min(int(digits or b"0"), DELTA_SECONDS_MAX)


def field_names(argument: bytes | None) -> set[bytes]:
    """The names in private="a, b"; none at all where one of them is not a name."""
    names = {name.strip(b" \t").lower() for name in (argument or b"").split(b",")} - {b""}
    return names if all(TOKEN.match(name) for name in names) else set()


def directives(values: list[bytes]) -> Directives:
    """Of the lines of a Cache-Control field (RFC 9111 §5.2)."""
    found = Directives()
    for line in values:
        parts, ends = _outside_quotes(line)
        for part in parts:
            name, equals, argument = part.partition(b"=")
            name = name.lower()
            if TOKEN.match(name):
                value = _unquoted(argument) if equals else None
                found.named.setdefault(name, []).append(value)
        if not ends:
            words = [part.partition(b"=")[0] for part in line.replace(b'"', b",").split(b",")]
            found.doubtful |= {word.strip(b" \t").lower() for word in words}
    return found


@lru_cache(4096)
def _outside_quotes(line: bytes) -> tuple[tuple[bytes, ...], bool]:
    """Split at the commas outside of quoted strings; does every string end?"""
    parts, part, quoted, escaped = [], bytearray(), False, False
    for octet in line:
        if quoted and escaped:
            escaped = False
        elif quoted and octet == 0x5C:
            escaped = True
        elif octet == 0x22:
            quoted = not quoted
        elif octet == 0x2C and not quoted:
            parts.append(bytes(part).strip(b" \t"))
            part.clear()
            continue
        part.append(octet)
    parts.append(bytes(part).strip(b" \t"))
    return tuple(parts), not quoted


def _unquoted(argument: bytes) -> bytes:
    if len(argument) >= 2 and argument[:1] == b'"' == argument[-1:]:
        return re.sub(rb"\\(.)", rb"\1", argument[1:-1])
    return argument


def request_directives(headers: Headers) -> Directives:
    return directives(lines(headers, b"cache-control"))


def response_directives(headers: Headers) -> tuple[Directives, bool]:
    """The directives that rule a shared cache, and whether CDN-Cache-Control gives them.

    Where it does, neither Cache-Control nor Expires counts (RFC 9213 §2.2).
    """
    targeted = _dictionary(lines(headers, b"cdn-cache-control"))
    if targeted:
        return Directives({name: [value] for name, value in targeted.items()}), True
    return directives(lines(headers, b"cache-control")), False


_SF_KEY = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
_SF_BARE = re.compile(
    rb"""(?P<number>-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.]))
       | (?P<string>"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*")
       | (?P<token>[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*)
       | (?P<bytes>:[A-Za-z0-9+/=]*:)
       | (?P<boolean>\?[01])""",
    re.VERBOSE,
)


def _dictionary(values: list[bytes]) -> dict[bytes, bytes | None]:
    """A dictionary of structured fields (RFC 9651 §4.2.2); {} where it does not parse.

    Inner lists count as no dictionary: no directive has one.
    """
    text = b", ".join(values).strip(b" ")
    found: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(text):
        key = _SF_KEY.match(text, at)
        if key is None:
            return {}
        at = key.end()
        value: bytes | None = None
        if text[at : at + 1] == b"=":
            bare = _SF_BARE.match(text, at + 1)
            if bare is None:
                return {}
            at = bare.end()
            value = _unquoted(bare[0]) if bare["string"] is None else b"s:" + _unquoted(bare[0])
            if bare["string"] is not None and key[0] in {b"private", b"no-cache"}:
                value = _unquoted(bare[0])
        while parameter := re.compile(rb";[ ]*").match(text, at):
            name = _SF_KEY.match(text, parameter.end())
            if name is None:
                return {}
            at = name.end()
            if text[at : at + 1] == b"=":
                bare = _SF_BARE.match(text, at + 1)
                if bare is None:
                    return {}
                at = bare.end()
        found[key[0]] = value
        space = re.compile(rb"[ \t]*").match(text, at)
        at = space.end() if space else at
        if at == len(text):
            return found
        comma = re.compile(rb",[ \t]*").match(text, at)
        if comma is None or comma.end() == len(text):
            return {}
        at = comma.end()
    return found


# --- dates, tags, ranges -------------------------------------------------------------------------

_MONTHS = b"jan feb mar apr may jun jul aug sep oct nov dec".split()
_IMF = (
    rb"(?:mon|tue|wed|thu|fri|sat|sun), (\d\d) ([a-z]{3}) (\d{4}) (\d\d):(\d\d):(\d\d) (?:gmt|utc)"
)
_RFC_850 = (
    rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day, "
    rb"(\d\d)-([a-z]{3})-(\d\d) (\d\d):(\d\d):(\d\d) (?:gmt|utc)"
)
_ASCTIME = rb"(?:mon|tue|wed|thu|fri|sat|sun) ([a-z]{3}) (\d\d| \d) (\d\d):(\d\d):(\d\d) (\d{4})"


def http_date(value: bytes, now_s: float) -> int | None:
    """Unix seconds (RFC 9110 §5.6.7); None where it is no date.  Case and UTC: RFC 9111 §4.2."""
    value = value.lower()
    if match := re.fullmatch(_IMF, value):
        day, month, year, *clock = match.groups()
    elif match := re.fullmatch(_RFC_850, value):
        day, month, year, *clock = match.groups()
        year = b"%d" % _full_year(int(year), now_s)
    elif match := re.fullmatch(_ASCTIME, value):
        month, day, *clock, year = match.groups()
    else:
        return None
    hour, minute, second = (int(part) for part in clock)
    if month not in _MONTHS or hour > 23 or minute > 59 or second > 60 or int(year) < 1:
        return None
    number = _MONTHS.index(month) + 1
    if not 1 <= int(day) <= calendar.monthrange(int(year), number)[1]:
        return None
    return calendar.timegm((int(year), number, int(day), hour, minute, second, 0, 0, 0))


def _full_year(two_digits: int, now_s: float) -> int:
    """A year that seems more than 50 years ahead is of the past (RFC 9110 §5.6.7)."""
    this_year = 1970 + int(now_s // 31_556_952)
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + 50 else year


def weak(tag: bytes) -> bytes:
    """What weak comparison compares (RFC 9110 §8.8.3.2)."""
    return tag.removeprefix(b"W/")


def strongly_equal(one: bytes, other: bytes) -> bool:
    return one == other and is_tag(one) and not one.startswith(b"W/")


def is_tag(value: bytes) -> bool:
    return re.fullmatch(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"', value) is not None


def tags(headers: Headers, name: bytes) -> list[bytes]:
    """The entity tags of If-None-Match; also `*`, and what is no tag as it stands."""
    joined = b",".join(lines(headers, name))
    return [tag.strip(b" \t") for tag in _outside_quotes_of_tags(joined) if tag.strip(b" \t")]


def _outside_quotes_of_tags(text: bytes) -> list[bytes]:
    """Split at commas outside of quotation marks, which nothing escapes in a tag."""
    parts, part, quoted = [], bytearray(), False
    for octet in text:
        quoted ^= octet == 0x22
        if octet == 0x2C and not quoted:
            parts.append(bytes(part))
            part.clear()
        else:
            part.append(octet)
    return [*parts, bytes(part)]


def byte_ranges(headers: Headers, size: int) -> list[tuple[int, int]] | None:
    """First and last byte of each satisfiable range of a body; None: no valid Range (§14.1.2)."""
    values = lines(headers, b"range")
    if len(values) != 1:
        return None
    unit, _, ranges = values[0].partition(b"=")
    if unit.lower() != b"bytes":
        return None
    found = []
    specs = [spec.strip(b" \t") for spec in ranges.split(b",")]
    specs = [spec for spec in specs if spec]
    for spec in specs:
        match = re.fullmatch(rb"([0-9]*)-([0-9]*)", spec)
        if match is None or spec == b"-":
            return None
        first, last = (_position(digits) for digits in match.groups())
        if first is None:
            if last:
                found.append((max(0, size - last), size - 1))
        elif last is not None and last < first:
            return None
        else:
            found.append((first, size - 1 if last is None else min(last, size - 1)))
    return [(first, last) for first, last in found if first < size] if specs else None


def _position(digits: bytes) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip(b"0") or b"0"
    return 10**18 if len(digits) > 18 else int(digits)

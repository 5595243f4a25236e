"""Structured fields, as far as caching needs them: dictionaries, lists of strings, a string out.

    CDN-Cache-Control: max-age=60, private="set-cookie";x=1, must-revalidate
    Cache-Groups: "news", "news;2"

The syntax is regular, and the patterns below are its grammar.  One byte that does not fit makes the
whole field invalid: there is nothing to be lenient about (§4.2).
Source: RFC 9651 §3, §4.1.6, §4.2; RFC 9875 §2, §3.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

MEMBERS_MAX = 1_024  # what §3.1 and §3.2 ask every parser for; a field with more is invalid
INNER_MEMBERS_MAX = 256  # what §3.1.1 asks for; a field with an inner list of more is invalid
STRINGS_MAX = 128  # RFC 9875 §2.1 asks for 32 groups
STRING_CHARACTERS_MAX = 256  # RFC 9875 §2.1 asks for 32 characters


class Token(str):
    """A token, which is not the string of the same characters."""

    __slots__ = ()


class Unread(Enum):
    """A valid value of a type that nothing here asks for."""

    DECIMAL = "decimal"
    BYTES = "byte sequence"
    DATE = "date"
    DISPLAY_STRING = "display string"
    INNER_LIST = "inner list"


Value: TypeAlias = "bool | int | str | Unread"
"""A `str` is a string, or a token where it is a Token."""

# No group repeats possessively: CPython before 3.11.5 matches those wrongly (gh-106052).  Every
# alternative begins with another byte, so that there is one way at most to read the input.
_KEY = rb"[a-z*][a-z0-9_.*-]*+"
_BARE_ITEM = (
    rb"(?:(?P<integer>-?[0-9]{1,15}(?![0-9.]))"
    rb"|(?P<decimal>-?[0-9]{1,12}\.[0-9]{1,3}(?![0-9.]))"
    rb'|"(?P<string>(?:[ !\x23-\x5b\x5d-\x7e]++|\\["\\])*)"'
    rb"|(?P<token>[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+)"
    rb"|\?(?P<boolean>[01])"
    rb"|(?P<bytes>:[A-Za-z0-9+/=]*+:)"
    rb"|(?P<date>@-?[0-9]{1,15}(?![0-9.]))"
    rb'|%"(?P<display>(?:[ !\x23\x24\x26-\x7e]++|%[0-9a-f]{2})*)")'
)
_NAMELESS_ITEM = re.sub(rb"\?P<[a-z]+>", rb"?:", _BARE_ITEM)
_PARAMETERS = rb"(?:; *+" + _KEY + rb"(?:=" + _NAMELESS_ITEM + rb")?){0,256}"  # as §3.1.2 asks for
_INNER_LIST = (
    rb"(?P<inner>\( *+(?:"
    + _NAMELESS_ITEM
    + _PARAMETERS
    + rb"(?: ++|(?=\)))){0,%d}\))" % INNER_MEMBERS_MAX
)
_ITEM_OR_INNER_LIST = rb"(?:" + _BARE_ITEM + rb"|" + _INNER_LIST + rb")"
_DICTIONARY_MEMBER = re.compile(
    rb"(?P<key>" + _KEY + rb")(?:=" + _ITEM_OR_INNER_LIST + rb")?" + _PARAMETERS
)
_LIST_MEMBER = re.compile(_ITEM_OR_INNER_LIST + _PARAMETERS)
_SEPARATOR = re.compile(rb"[ \t]*+(?:,[ \t]*+(?=[\s\S])|\Z)")
# In what the grammar has accepted; strings are named to step over what only looks like one there.
_DISPLAY_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*"|%"([^"]*+)"')
_QUOTABLE = re.compile(r"[ -~]*")
_PERCENT = re.compile(rb"%([0-9a-f]{2})")

_UNREAD = {
    "decimal": Unread.DECIMAL,
    "bytes": Unread.BYTES,
    "date": Unread.DATE,
    "display": Unread.DISPLAY_STRING,
    "inner": Unread.INNER_LIST,
}


def parse_dictionary(lines: Iterable[bytes]) -> dict[bytes, Value] | None:
    """The members of all lines by key, without parameters; None where a line is not valid.

    The last of several members with one key counts; a key without a value is true.
    Source: RFC 9651 §4.2.2.
    """
    found = _members(lines, _DICTIONARY_MEMBER)
    return None if found is None else {member["key"]: _value(member) for member in found}


def parse_string_list(lines: Iterable[bytes]) -> list[str] | None:
    """The strings of all lines in order; None where the field is not a list of strings only.

    Strings longer than STRING_CHARACTERS_MAX, and those after STRINGS_MAX, are left out.
    Source: RFC 9651 §4.2.1; RFC 9875 §2, §3.
    """
    found = _members(lines, _LIST_MEMBER)
    if found is None or any(member["string"] is None for member in found):
        return None
    strings = [_string(member["string"]) for member in found]
    return [string for string in strings if len(string) <= STRING_CHARACTERS_MAX][:STRINGS_MAX]


def quoted(text: str) -> bytes:
    """`text` as a string in its quotes.

    Raises ValueError for what is not printable ASCII.  Source: RFC 9651 §4.1.6.
    """
    if not _QUOTABLE.fullmatch(text):
        raise ValueError(f"not printable ASCII: {text!r}")
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'


def _members(lines: Iterable[bytes], member: re.Pattern[bytes]) -> list[re.Match[bytes]] | None:
    field = b", ".join(lines).strip(b" ")
    found: list[re.Match[bytes]] = []
    at = 0
    while at < len(field):
        match = member.match(field, at)
        separator = None if match is None else _SEPARATOR.match(field, match.end())
        if match is None or separator is None or len(found) == MEMBERS_MAX:
            return None
        found.append(match)
        at = separator.end()
    # Only a display string can be well formed and yet invalid: it has to be UTF-8.
    return found if b'%"' not in field or all(map(_is_utf8, found)) else None


def _is_utf8(member: re.Match[bytes]) -> bool:
    """Whether no display string of the member, in whatever place, breaks UTF-8 (§4.2.10)."""
    for display in _DISPLAY_STRING.findall(member.group()):
        try:
            _PERCENT.sub(lambda pair: bytes.fromhex(pair[1].decode()), display).decode()
        except UnicodeDecodeError:
            return False
    return True


def _value(member: re.Match[bytes]) -> Value:
    groups = member.groupdict()
    if groups["integer"] is not None:
        return int(groups["integer"])
    if groups["string"] is not None:
        return _string(groups["string"])
    if groups["token"] is not None:
        return Token(groups["token"].decode("ascii"))
    for name, unread in _UNREAD.items():
        if groups[name] is not None:
            return unread
    return bool(groups["boolean"] != b"0")  # true by presence, or ?1


def _string(escaped: bytes) -> str:
    return re.sub(r"\\(.)", r"\1", escaped.decode("ascii"))

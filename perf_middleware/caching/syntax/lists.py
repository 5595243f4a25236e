"""Comma-separated lists over one or several field lines, and the tokens and strings in them.

    Vary: accept, "a, b" ,,      members: accept | "a, b" | Cookie      empty elements say nothing
    Vary: Cookie

Each line is a list of its own: a string left open ends with its line, it never reaches the next.
Source: RFC 9110 §5.3 (several lines), §5.6.1 (lists), §5.6.2 (tokens), §5.6.4 (strings).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OWS = b" \t"
_TCHAR = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Runs of plain bytes are taken as one and never given back, and each alternative begins with
# another byte: linear time, whatever is left open or escaped.  No group repeats possessively:
# CPython before 3.11.5 matches those wrongly (gh-106052).
_ELEMENT = re.compile(rb'(?:[^,"]++|"(?:[^"\\]++|\\[\s\S])*(?:"|\\?\Z))+')
_QUOTED_STRING = re.compile(
    rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]++|\\[\t \x21-\x7e\x80-\xff])*"'
)
_QUOTED_PAIR = re.compile(rb"\\([\s\S])")


def members(lines: Iterable[bytes]) -> list[bytes]:
    """The elements of all lines in order, without the white space around them, none empty.

    A comma inside a quoted string splits nothing; one that is never closed takes the whole rest.
    """
    found: list[bytes] = []
    for line in lines:
        elements = _ELEMENT.findall(line) if b'"' in line else line.split(b",")
        found += [stripped for element in elements if (stripped := element.strip(OWS))]
    return found


def is_token(value: bytes) -> bool:
    """Whether `value` is a token: not empty, and nothing but tchar (RFC 9110 §5.6.2)."""
    return bool(value) and not value.translate(None, _TCHAR)


def unquote(value: bytes) -> bytes | None:
    """What a token or a quoted string stands for; None where `value` is neither."""
    if is_token(value):
        return value
    if not _QUOTED_STRING.fullmatch(value):
        return None
    inner = value[1:-1]
    return _QUOTED_PAIR.sub(rb"\1", inner) if b"\\" in inner else inner

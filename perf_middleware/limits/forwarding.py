"""The hops of a request as proxies note them: X-Forwarded-For and Forwarded, read from the right.

    Forwarded: for="[2001:db8::1]:80";proto=https, for=192.0.2.43;by="a, b"
               <- what the client may have sent    <- what the proxy beside us has added

Each proxy appends, so that only the end of the field was written by somebody we know.  Reading
from the left would let a client's open quotation mark swallow that end; from the right nothing that
stands further left can change how the end is read.
Sources: RFC 7239 §4, §6, §7.1; RFC 9110 §5.6.4 (quoted strings).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from perf_middleware.limits.networks import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.limits.networks import Address

FieldName: TypeAlias = Literal["x-forwarded-for", "forwarded"]

FIELD_BYTES_MAX: Final = 4_096  # of its end; what stands further left is not read
HOPS_MAX: Final = 64  # likewise: no request passes through so many proxies

_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")
_BACKSLASH: Final = ord("\\")
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110's word
# An address with colons has to stand in quotation marks; it is read without them, too.
_PAIR: Final = re.compile(rf'[ \t]*({_TOKEN})=(?:([^\s";,\\]+)|"((?:[^"\\]|\\.)*)")[ \t]*(?:;|\Z)')
_ESCAPED: Final = re.compile(r"\\(.)")


def hops(name: FieldName, value: bytes) -> Iterator[Address | None]:
    """The addresses of `value` (all lines of the field, joined), from the right.

    None, and nothing behind it, for what tells no address: `unknown`, an obfuscated name, an empty
    or broken element, one that is too far to the left.
    """
    tail = value[-FIELD_BYTES_MAX:]
    elements = _elements(tail) if name == "forwarded" else _plain_elements(tail)
    read = _for_of if name == "forwarded" else str.strip
    whole = len(tail) == len(value)
    for number, (element, is_leftmost) in enumerate(elements):
        # The leftmost one of a cut field may be half an address.
        node = None if number >= HOPS_MAX or (is_leftmost and not whole) else read(element)
        address = None if node is None else address_of(node)
        yield address
        if address is None:
            return


def _plain_elements(value: bytes) -> Iterator[tuple[str, bool]]:
    text = value.decode("latin-1")
    while True:
        text, comma, element = text.rpartition(",")
        yield element, not comma
        if not comma:
            return


def _elements(value: bytes) -> Iterator[tuple[str, bool]]:
    """The elements of a Forwarded, from the right; a comma between quotation marks is none."""
    end = at = len(value)
    quoted = False
    while at > 0:
        at -= 1
        byte = value[at]
        if byte == _QUOTE and not (quoted and _is_escaped(value, at)):
            quoted = not quoted
        elif byte == _COMMA and not quoted:
            yield value[at + 1 : end].decode("latin-1"), False
            end = at
    yield value[:end].decode("latin-1"), True


def _is_escaped(value: bytes, at: int) -> bool:
    """Whether an odd number of backslashes stands before `at`."""
    before = at
    while before > 0 and value[before - 1] == _BACKSLASH:
        before -= 1
    return (at - before) % 2 == 1


def _for_of(element: str) -> str | None:
    """The node of one element; None where it has none, has two, or is broken."""
    node: str | None = None
    at, text = 0, element.strip(" \t")
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        name, token, string = pair.groups()
        if name.lower() == "for":
            if node is not None:
                return None
            node = token if token is not None else _ESCAPED.sub(r"\1", string)
        at = pair.end()
    return node

"""Which of the stored responses of one URL answers a request: Vary (RFC 9111 §4.1).

The secondary key is the request's values of the fields that the stored response's Vary names,
normalised where that cannot change their meaning.  A field that is not there differs from an
empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.caching.syntax.lists import OWS, is_token, members

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VARY_FIELDS_MAX: Final = 16  # more would make every request its own variant
VARY_VALUE_BYTES_MAX: Final = 8_192
_SETS: Final = frozenset({b"accept-encoding", b"accept-charset"})
ABSENT: Final = b"-"
_PRESENT: Final = b"+"


def vary_names(lines: Iterable[bytes]) -> tuple[bytes, ...] | None:
    """The field names of all Vary lines, sorted; None where no request can ever match.

    That is `*` anywhere in the list, what is no list of names, and too many of them.
    """
    names = set()
    for member in members(lines):
        if not is_token(member):
            return None
        names.add(member.lower())
    if b"*" in names or len(names) > VARY_FIELDS_MAX:
        return None
    return tuple(sorted(names))


def secondary_key(names: Sequence[bytes], fields: Mapping[bytes, Sequence[bytes]]) -> bytes | None:
    """The request's values of `names` as one key; None where they are too long to be one.

    Each value is told with its length, so that no two requests share a key by chance.
    """
    parts = []
    for name in names:
        lines = fields.get(name)
        if lines is None:
            parts.append(ABSENT)
            continue
        value = normalised(name, lines)
        if len(value) > VARY_VALUE_BYTES_MAX:
            return None
        parts.append(b"%d%b%b" % (len(value), _PRESENT, value))
    return b",".join(parts)


def normalised(name: bytes, lines: Sequence[bytes]) -> bytes:
    """One field's lines as one value: joined, whitespace trimmed, lists in one spelling.

    Only fields without regard to order are sorted.
    Source: RFC 9111 §4.1.
    """
    if name in _SETS:
        return b",".join(sorted(_spelled(lines)))
    if name == b"accept":
        return b",".join(members(lines))  # its parameters may be quoted, and case may matter there
    if len(lines) == 1:
        return lines[0].strip(OWS)
    return b", ".join(line.strip(OWS) for line in lines)


def _spelled(lines: Sequence[bytes]) -> list[bytes]:
    """The elements in lower case, without the white space that their grammar allows (§12.4.2)."""
    return [
        b";".join(part.strip(OWS) for part in member.lower().split(b";"))
        for member in members(lines)
    ]

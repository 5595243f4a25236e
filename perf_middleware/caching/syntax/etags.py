"""Entity tags, one or a list of them, and the two ways to compare.

    ETag: W/"v1"      If-None-Match: "a,b", W/"v1"       If-Match: *

A tag is kept with its quotes, byte by byte; there are no escapes in it, and commas are allowed.
Source: RFC 9110 §8.8.3, §13.1.1, §13.1.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

ELEMENTS_MAX = 256  # browsers send one; what is beyond is not read, which costs a full answer

_TAG = rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*+")'
_ENTITY_TAG = re.compile(_TAG)
_MEMBER = re.compile(_TAG + rb"[ \t]*+(?:,|\Z)")
_SEPARATORS = re.compile(rb"[ \t,]*+")


@dataclass(frozen=True, slots=True)
class EntityTag:
    """An opaque tag with its quotes, and whether it vouches only for the same meaning."""

    opaque: bytes
    weak: bool = False


def parse_etag(value: bytes) -> EntityTag | None:
    """The entity tag that `value` is, or None where it is none: unquoted, with spaces, open."""
    found = _ENTITY_TAG.fullmatch(value.strip(b" \t"))
    return None if found is None else EntityTag(found[2], found[1] is not None)


def strong_match(a: EntityTag, b: EntityTag) -> bool:
    """Whether both are strong and the same (RFC 9110 §8.8.3.2)."""
    return a.opaque == b.opaque and not a.weak and not b.weak


def weak_match(a: EntityTag, b: EntityTag) -> bool:
    """Whether the opaque parts are the same, weak or not (RFC 9110 §8.8.3.2)."""
    return a.opaque == b.opaque


def parse_etag_list(lines: Iterable[bytes]) -> list[EntityTag] | Literal["*"] | None:
    """The tags of If-Match or If-None-Match, `"*"`, or None where nothing in it is valid.

    What is no tag is passed over up to the next comma; tags beside a `*` count, the `*` does not.
    Of all lines ELEMENTS_MAX elements are read.  Source: RFC 9110 §13.1.1, §13.1.2.
    """
    tags: list[EntityTag] = []
    any_tag = False
    elements = 0
    for line in lines:
        at = _after_separators(line, 0)
        while at < len(line) and elements < ELEMENTS_MAX:
            elements += 1
            found = _MEMBER.match(line, at)
            if found is not None:
                tags.append(EntityTag(found[2], found[1] is not None))
                at = found.end()
            else:
                comma = line.find(b",", at)
                element_end = len(line) if comma < 0 else comma
                any_tag = any_tag or line[at:element_end].rstrip(b" \t") == b"*"
                at = element_end
            at = _after_separators(line, at)
    if tags:
        return tags
    return "*" if any_tag else None


def _after_separators(line: bytes, at: int) -> int:
    found = _SEPARATORS.match(line, at)
    return at if found is None else found.end()

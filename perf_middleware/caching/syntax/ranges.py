"""The Range of a request: which bytes it asks for, before the length of the body is known.

    Range: bytes=0-499, 1000-, -200      (0, 499), (1000, None), (None, 200)

A field that is not valid is ignored whole, as is another unit: the answer is the complete body.
Source: RFC 9110 §14.1.1, §14.1.2, §14.2.
"""

from __future__ import annotations

import re
from typing import TypeAlias

RANGES_MAX = 32  # players and readers ask for a few; §14.2 allows to ignore what is excessive
POSITION_MAX = 2**63 - 1  # no body is longer: what is beyond means the end of it

_UNIT = re.compile(rb"bytes=", re.IGNORECASE)
_RANGE_SPEC = re.compile(rb"([0-9]*+)-([0-9]*+)")
_ELEMENTS_MAX = 4 * RANGES_MAX  # empty elements are allowed (§5.6.1), not without end
_DIGITS_MAX = len(str(POSITION_MAX))

RangeSpec: TypeAlias = "tuple[int, int | None] | tuple[None, int]"
"""First and last position, last None for an open end; or None and the length of a suffix."""


def parse_range(value: bytes) -> list[RangeSpec] | None:
    """The ranges as they were asked for, at least one; None: the field is to be ignored."""
    unit = _UNIT.match(value.strip(b" \t"))
    if unit is None or value.count(b",") >= _ELEMENTS_MAX:
        return None
    specs: list[RangeSpec] = []
    for element in unit.string[unit.end() :].split(b","):
        if not (stripped := element.strip(b" \t")):
            continue
        spec = _range_spec(stripped)
        if spec is None or len(specs) == RANGES_MAX:
            return None
        specs.append(spec)
    return specs or None


def _range_spec(element: bytes) -> RangeSpec | None:
    found = _RANGE_SPEC.fullmatch(element)
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        return (None, _position(last)) if last else None
    if not last:
        return _position(first), None
    if _is_after(first, last):
        return None
    return _position(first), _position(last)


def _is_after(first: bytes, last: bytes) -> bool:
    """Whether `first` is the greater number, compared digit by digit: both may be huge."""
    first, last = first.lstrip(b"0"), last.lstrip(b"0")
    return (len(first), first) > (len(last), last)


def _position(digits: bytes) -> int:
    if len(digits) > _DIGITS_MAX:  # int() refuses thousands of digits
        digits = digits.lstrip(b"0") or b"0"
        if len(digits) > _DIGITS_MAX:
            return POSITION_MAX
    return min(int(digits), POSITION_MAX)

"""Which coding answers a request: Accept-Encoding against what the server offers.

    Accept-Encoding: gzip, br;q=0.8, *;q=0.1, identity;q=0     offered: zstd, br, gzip

    the client's order    gzip (1)   br (0.8)   zstd (0.1, by *)   identity (refused: last resort)

The client's qvalues come first: they are its word on what costs it how much, and the field is its
only one.  Browsers give all their codings the same one, so that in practice the server's order,
which knows the CPU here, decides among equals.  Identity that nobody named ranks below every
coding that is accepted: whoever sends the field wants one.
Source: RFC 9110 §12.4.2 (qvalues), §12.5.3 (Accept-Encoding), §8.4.1.3 (x-gzip).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

IDENTITY: Final = "identity"
FIELD_BYTES_MAX: Final = 1_024  # browsers send some 30; what is longer is read as no field at all

# A qvalue has three digits at most; OWS is space and tab.  Both letters of the weight and the
# coding are read without regard to case (RFC 9110 §8.4.1, RFC 5234 §2.3).
_MEMBER: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++)"
    rb"(?:[ \t]*+;[ \t]*+[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_UNITS: Final = 1_000  # qvalues are compared as whole thousandths
_ALIASES: Final = {"x-gzip": "gzip", "x-compress": "compress"}


def acceptable_codings(value: bytes | None, offered: Sequence[str]) -> tuple[str, ...]:
    """The codings of `offered` that may answer, best first; the last is always identity.

    The first is the choice; whoever has ready-made forms takes the first that he has.
    `value` is the field's one line, or its lines joined by commas, which is the same list
    (RFC 9110 §5.3); `offered` is the server's order of preference, without identity.

    - None, no field: identity alone.  By the letter everything is acceptable then, but what sends
      no field at all is mostly what cannot decode.
    - A coding named twice has the lowest qvalue that it was given: what is refused once stays so.
    - What is not of the grammar says nothing, as if it was not there.
    - Where nothing is acceptable, identity is: 406 helps nobody (§12.5.3 lets the server choose).
    """
    if value is None or len(value) > FIELD_BYTES_MAX:
        return (IDENTITY,)
    weights = _weights(value)
    others = weights.get("*", 0)
    ranked = [(weights.get(name, others), name) for name in offered]
    # Unnamed, it is acceptable below all codings (§12.5.3); `*` speaks of it too.
    at_least = weights.get(IDENTITY, others)
    accepted = [pair for pair in ranked if pair[0] and pair[0] >= at_least]
    accepted.sort(key=_weight, reverse=True)  # stable: the server's order among equals
    return (*(name for _, name in accepted), IDENTITY)


def field_value(lines: Sequence[bytes]) -> bytes | None:
    """All lines of the field as one value, to ask with or to remember by; None for no line."""
    if len(lines) == 1:
        return lines[0]
    return b",".join(lines) if lines else None


def _weights(value: bytes) -> dict[str, int]:
    """The qvalue of each coding that is named, in thousandths."""
    weights: dict[str, int] = {}
    for element in value.split(b","):  # the grammar has no quoted strings
        member = _MEMBER.fullmatch(element.strip(b" \t"))
        if member is None:
            continue
        coding, qvalue = member.groups()
        name = coding.decode("ascii").lower()
        name = _ALIASES.get(name, name)
        weight = _UNITS if qvalue is None else _thousandths(qvalue)
        weights[name] = min(weight, weights.get(name, _UNITS))
    return weights


def _thousandths(qvalue: bytes) -> int:
    whole, _, decimals = qvalue.partition(b".")
    return int(whole + decimals.ljust(3, b"0"))


def _weight(ranked: tuple[int, str]) -> int:
    return ranked[0]

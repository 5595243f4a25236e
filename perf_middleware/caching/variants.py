"""The variants of one URL: which request fields tell them apart (RFC 9111 §4.1).

    primary key -> StoredResponse                        no Vary was ever seen
    primary key -> Variants(names) -> primary key + names + secondary key -> StoredResponse

`names` is the union over every Vary that was stored: a longer secondary key is more exact than any
one response asked for, and never less.  When it grows, the variants under the shorter keys go.  A
key tells by which names it was made: one of other names is never taken for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.caching.selection import VARY_FIELDS_MAX, secondary_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIANTS_BYTES: Final = 800  # the record itself, measured
VARIANT_BYTES: Final = 60  # what it holds for each of its variants
SEPARATOR: Final = b"\r"  # in no header value and no URL that a server lets in


class Variants:
    """The fields that tell one URL's stored responses apart, and their keys."""

    __slots__ = ("keys", "names", "prefix")

    def __init__(self, primary: bytes, names: tuple[bytes, ...]) -> None:
        self.prefix = primary + SEPARATOR + b",".join(names) + SEPARATOR
        self.names = names
        self.keys: set[bytes] = set()

    @property
    def size_bytes(self) -> int:
        return VARIANTS_BYTES + len(self.prefix) + VARIANT_BYTES * len(self.keys)

    def key_for(self, fields: Mapping[bytes, Sequence[bytes]]) -> bytes | None:
        """The full key of a request with these fields; None where no stored one can match."""
        secondary = secondary_key(self.names, fields)
        return None if secondary is None else self.prefix + secondary


def names_in(key: bytes, primary: bytes) -> tuple[bytes, ...]:
    """The names by which a key of `primary` was made; none for the primary key itself."""
    if len(key) == len(primary):
        return ()
    named = key[len(primary) + len(SEPARATOR) :].partition(SEPARATOR)[0]
    return tuple(named.split(b",")) if named else ()


def united(names: tuple[bytes, ...], more: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    """Both sets of names, sorted; None where they are too many to tell variants apart."""
    if names == more:
        return names
    both = tuple(sorted({*names, *more}))
    return both if len(both) <= VARY_FIELDS_MAX else None

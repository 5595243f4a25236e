"""How records and messages look: the names and numbers that scripts and processes agree on."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import ormsgpack

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD: Final = 10  # version, flag, count
VARIES: Final = b"V"
VARIES_BYTES_MAX: Final = 4_096  # of such a record, its names; find.lua has it too
SOFT: Final = ord("s")
CLUSTER_SHARDS: Final = 16
EVERYTHING: Final = b"*"
ALL_PURGED: Final = 1  # kinds of messages
VARIED: Final = 2
MESSAGE_HEAD: Final = 18  # count, sender, shard, kind
COUNT: Final = struct.Struct(">Q")


class Found(NamedTuple):
    """A record's content, HEAD bytes of ours before it; `key` is that of the variant.

    A tuple, for each hit makes one: a frozen dataclass takes three times as long.
    """

    key: bytes
    content: bytes
    is_soft: bool
    """Purged softly since it was stored."""


@dataclass(frozen=True, slots=True)
class Missing:
    """No record; `key` is what was looked for.  `leads`: the lease is this process's now."""

    key: bytes
    leads: bool
    lease_left_ms: int = 0


@dataclass(frozen=True, slots=True)
class Unnamed:
    """Its variants are told apart by these fields, more than were named."""

    names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The first part of its records' names, and the names of what is kept beside them."""

    records: bytes
    count: bytes
    log: bytes
    floor: bytes


class Asking(Protocol):
    """The request that a record is looked up for, as far as variants are told apart by it."""

    def parts_of(self, names: tuple[bytes, ...]) -> list[bytes] | None:
        """Its part of the secondary key for each of these fields; None where they make no key."""

    def told(self) -> tuple[bytes, bool]:
        """For each field that it has, `told_field`; and whether these are all."""


Seen: TypeAlias = tuple[int, ...]
"""For each shard the number of the last message that was heard."""


def bytes_of(text: str) -> bytes:
    """A text of any kind: what JSON lets in need not be one that UTF-8 knows."""
    return text.encode("utf-8", "surrogatepass")


def text_of(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def message(kind: str, *words: str | bytes | bool) -> bytes:
    """What one process tells the others; texts go as bytes."""
    return ormsgpack.packb(
        [kind, *(bytes_of(word) if isinstance(word, str) else word for word in words)]
    )


def told_field(name: bytes, part: bytes) -> bytes:
    """A field for find.lua: its name, and its part of the secondary key (b"": it has none, for it
    is too long), each of 255 bytes at most and behind its length.
    """
    return b"%c%b%c%b" % (len(name), name, len(part), part)


def variant_key(key: bytes, names: tuple[bytes, ...], parts: Sequence[bytes]) -> bytes:
    return key + b"\r" + b",".join(names) + b"\r" + b",".join(parts)


def names_in(full: bytes, key: bytes) -> tuple[bytes, ...]:
    """By which fields a full key of `key` was made."""
    named = full[len(key) + 1 :].partition(b"\r")[0]
    return tuple(named.split(b",")) if named else ()

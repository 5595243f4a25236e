"""What a process knows of how records vary: by which request fields, or by none.

It decides how a record is looked up: one that does not vary, and most do not, by its key alone;
one that does, together with the variant; one of which nothing is known by a script that chooses the
variant inside of Redis, which is dearer.  To have forgotten costs that, and nothing else: so there
is a bound, and keys that do not vary are remembered by a number of 32 bits each, in pairs of slots:

    hash of the key -> pair of slots, number      |  newer  |  older  | -> forgotten

To take one key for another (their numbers are the same once in 2**32) costs a look-up more.
Before any record of all processes has varied, none is said to: all are looked up by their keys.
"""

from __future__ import annotations

from array import array
from typing import Final

VARIED_MAX: Final = 10_000  # keys that are known to vary; then it starts anew
SLOT_BITS: Final = 17  # for 131,072 keys that do not: 512 KiB, from the first one on
_NEWER: Final = (1 << SLOT_BITS) - 2
_PRINT: Final = (1 << 32) - 1


class Known:
    """By which fields records are known to vary."""

    __slots__ = ("_has_begun", "_names", "_prints")

    def __init__(self) -> None:
        self._has_begun = False
        self._names: dict[bytes, tuple[bytes, ...]] = {}
        self._prints = array("I")

    def names_of(self, key: bytes) -> tuple[bytes, ...] | None:
        """The names of the fields, none where it does not vary; None where that is not known."""
        if not self._has_begun:
            return ()
        prints = self._prints
        if prints:
            number = hash(key)
            slot = number & _NEWER
            own = number >> SLOT_BITS & _PRINT | 1  # as _place_of, without a call
            if prints[slot] == own or prints[slot + 1] == own:
                return ()
        return self._names.get(key)

    def begin(self) -> None:
        """Some record varies."""
        self._has_begun = True

    def learn(self, key: bytes, names: tuple[bytes, ...]) -> None:
        """It varies by these, or by none."""
        if names:
            self.begin()
            self.forget(key)
            if len(self._names) >= VARIED_MAX:
                self._names.clear()
            self._names[key] = names
        elif self._has_begun:
            self._names.pop(key, None)
            slot, own = _place_of(key)
            if not self._prints:
                self._prints = array("I", bytes(4 << SLOT_BITS))
            prints = self._prints
            if own not in prints[slot : slot + 2]:
                prints[slot + 1] = prints[slot]
                prints[slot] = own

    def forget(self, key: bytes) -> None:
        """It may vary by others from now on."""
        self._names.pop(key, None)
        slot, own = _place_of(key)
        for at in (slot, slot + 1) if self._prints else ():
            if self._prints[at] == own:
                self._prints[at] = 0


def _place_of(key: bytes) -> tuple[int, int]:
    """The first slot of its pair, and its number, which is never that of an empty one."""
    number = hash(key)
    return number & _NEWER, number >> SLOT_BITS & _PRINT | 1

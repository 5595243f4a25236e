"""What the names of a head's fields say, remembered by their sequence: apps and clients send few.

One pass over the names in C, and a look-up, in the place of a comparison for each field and layer.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

SEQUENCES_MAX: Final = 1_000  # each up to so many bytes; then it starts anew
SEQUENCE_BYTES_MAX: Final = 2_000
NAME: Final = itemgetter(0)


class NameSequences(Generic[T]):
    """What `read` finds in the names of fields, lower case and in their order.

    On a hot path `known` is read instead, by tuple(map(NAME, headers)), and `learn` is asked where
    that raises a LookupError, or a TypeError for names that an app has not made of bytes.
    """

    __slots__ = ("_read", "known")

    def __init__(self, read: Callable[[Sequence[bytes]], T]) -> None:
        self.known: dict[tuple[bytes, ...], T] = {}
        self._read = read

    def learn(self, headers: Sequence[Any]) -> T:
        """What the names in `headers` say.

        Raises TypeError or ValueError where those are no pairs.
        """
        names = tuple([name for name, _ in headers])
        # The server will complain of what is none; it keeps its place.
        found = self._read(
            [bytes(name).lower() if isinstance(name, bytes | bytearray) else b"" for name in names]
        )
        if set(map(type, names)) <= {bytes} and sum(map(len, names)) <= SEQUENCE_BYTES_MAX:
            if len(self.known) >= SEQUENCES_MAX:
                self.known.clear()
            self.known[names] = found
        return found

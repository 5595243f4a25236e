"""A JSON text too large for memory, gathered into pieces while its items come.

    opening   item , item ,      |  item , item ,       |  item   closing
              `---- piece ----'     `---- piece -----'     `-- the last --'

What was taken is never needed again: no more than one piece and one item are held.
Sources: RFC 8259 §5 (arrays); NDJSON 1.0 (a line feed behind each item, none inside: JSON escapes
it in strings).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.serialisation.encoding import encode

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What stands around the items of a JSON text."""

    opening: bytes
    between: bytes
    after: bytes
    closing: bytes

    @classmethod
    def array(cls, key: str | None = None) -> Self:
        """An array, or an object whose only member `key` is the array."""
        if key is None:
            return cls(opening=b"[", between=b",", after=b"", closing=b"]")
        return cls(opening=b"{%b:[" % encode(key), between=b",", after=b"", closing=b"]}")


LINES: Final = Layout(opening=b"", between=b"", after=b"\n", closing=b"")


class Gatherer:
    """Gathers the encoded items of one text; `size` is how many bytes wait to be taken."""

    __slots__ = ("_buffer", "_items", "_layout", "_separator")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._buffer = bytearray(layout.opening)
        self._separator = b""
        self._items = 0

    @property
    def size(self) -> int:
        return len(self._buffer)

    def add(self, item: Any) -> int:
        """Encode one more item; how many bytes now wait.

        Raises TypeError, which names the item by its number from 0.
        """
        try:
            encoded = encode(item)
        except TypeError as error:
            raise TypeError(f"item {self._items}: {error}") from error
        buffer = self._buffer
        buffer += self._separator
        buffer += encoded
        buffer += self._layout.after
        self._separator = self._layout.between
        self._items += 1
        return len(buffer)

    def take(self) -> bytes:
        """What was gathered since the last time."""
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece

    def end(self) -> bytes:
        """What was gathered, and the end of the text."""
        self._buffer += self._layout.closing
        return self.take()

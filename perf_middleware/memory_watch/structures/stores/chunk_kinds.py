"""How a chunked list keeps its items: as they are, as C numbers, or as compressed rows of JSON.

Each kind turns items into what its tail holds (`encoded`), a full tail into a chunk (`sealed`) and
a chunk into what can be indexed (`opened`); `item` gives the caller's item of one of these, `items`
of some.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import orjson

from perf_middleware.memory_watch.structures.drivers.compressors import compressor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from perf_middleware.memory_watch.structures.drivers.compressors import CodecName

ChunkCodec: TypeAlias = Literal["plain", "json", "b", "B", "h", "H", "i", "I", "q", "Q", "f", "d"]
"""Letters are typecodes of `array`: whole numbers of 1, 2, 4 and 8 bytes, floats of 4 and 8."""

TYPECODES: Final = "bBhHiIqQfd"
POINTER_BYTES: Final = 8


class ChunkKind(Protocol):
    """One way to keep items; from any thread."""

    def new_tail(self) -> Any:
        """Empty, with `append` and `extend`."""

    def encoded_one(self, item: Any) -> Any: ...

    def encoded(self, items: list[Any]) -> Any: ...

    def sealed(self, tail: Any) -> Any:
        """`tail` is a copy of the right size: what grew may hold an eighth more."""

    def opened(self, chunk: Any) -> Sequence[Any]: ...

    def item(self, kept: Any) -> Any: ...

    def items(self, opened: Sequence[Any]) -> Iterable[Any]: ...

    def size_bytes(self, chunk: Any) -> int:
        """What a sealed chunk takes."""


class PlainChunks:
    """References to the objects themselves."""

    def new_tail(self) -> list[Any]:
        return []

    def encoded_one(self, item: Any) -> Any:
        return item

    def encoded(self, items: list[Any]) -> list[Any]:
        return items

    def sealed(self, tail: list[Any]) -> list[Any]:
        return tail

    def opened(self, chunk: list[Any]) -> list[Any]:
        return chunk

    def item(self, kept: Any) -> Any:
        return kept

    def items(self, opened: Sequence[Any]) -> Sequence[Any]:
        return opened

    def size_bytes(self, chunk: list[Any]) -> int:
        return POINTER_BYTES * len(chunk)


class TypedChunks:
    """Numbers as C has them; one that does not fit raises TypeError or OverflowError."""

    def __init__(self, typecode: str) -> None:
        self._typecode = typecode

    def new_tail(self) -> array[Any]:
        return array(self._typecode)

    def encoded_one(self, item: Any) -> Any:
        return array(self._typecode, (item,))[0]  # it would fail under the lock else

    def encoded(self, items: list[Any]) -> array[Any]:
        return array(self._typecode, items)

    def sealed(self, tail: array[Any]) -> array[Any]:
        return tail

    def opened(self, chunk: array[Any]) -> array[Any]:
        return chunk

    def item(self, kept: Any) -> Any:
        return kept

    def items(self, opened: Sequence[Any]) -> Sequence[Any]:
        return opened

    def size_bytes(self, chunk: array[Any]) -> int:
        return chunk.itemsize * len(chunk)


class JSONChunks:
    """Rows as lines of JSON text; full chunks compressed.

    A row is encoded when it is appended, so it is checked then and nobody can change what is kept.
    What was opened last is remembered: neighbours are asked for together.
    """

    def __init__(self, name: CodecName, *, level: int | None) -> None:
        self._compressor = compressor(name, level=level)
        self._last: tuple[bytes, list[bytes]] | None = None  # replaced as one: no lock

    def new_tail(self) -> list[bytes]:
        return []

    def encoded_one(self, item: Any) -> bytes:
        line = orjson.dumps(item)
        if b"\n" in line:  # a text that orjson was told to take as it is (orjson.Fragment)
            line = orjson.dumps(orjson.loads(line))
        # A copy: orjson writes into 1 kB or more and gives back only what is left over, which the
        # C library seldom uses again.  Kept as they are, lines of 220 bytes took some 4 kB each.
        return bytes(memoryview(line))

    def encoded(self, items: list[Any]) -> list[bytes]:
        return list(map(self.encoded_one, items))

    def sealed(self, tail: list[bytes]) -> bytes:
        return self._compressor.encode(b"\n".join(tail))  # no line has one inside

    def opened(self, chunk: bytes | list[bytes]) -> list[bytes]:
        if isinstance(chunk, list):
            return chunk
        last = self._last
        if last is not None and last[0] is chunk:
            return last[1]
        lines = self._compressor.decode(chunk).split(b"\n")
        self._last = (chunk, lines)
        return lines

    def item(self, kept: bytes) -> Any:
        return orjson.loads(kept)

    def items(self, opened: Sequence[bytes]) -> Iterator[Any]:
        return map(orjson.loads, opened)

    def size_bytes(self, chunk: bytes) -> int:
        return len(chunk)


def chunk_kind(codec: ChunkCodec, *, compression: CodecName, level: int | None) -> ChunkKind:
    """The kind of that name.  Raises ValueError for one there is none of."""
    if codec == "plain":
        return PlainChunks()
    if codec == "json":
        return JSONChunks(compression, level=level)
    if len(codec) == 1 and codec in TYPECODES:
        return TypedChunks(codec)
    raise ValueError(f"a codec is plain, json or one of {', '.join(TYPECODES)}: {codec!r}")

"""A list to append to, kept in chunks of equal length.

    appended in all   0 ........ n ........ 2n ....... 3n ..
                      |  gone   |   sealed  |  sealed  | tail      n = chunk_items
                            ^ first: what is before it was dropped

The tail is plain; when it is full it is sealed into what its codec makes of it.  So nothing large
is ever copied to grow, the front can go chunk by chunk, and full chunks can be small.  Item `i` of
the list is number `first + i` of all: a division says which chunk has it.  When nothing is left the
tail goes too, and the rest of its numbers with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from perf_middleware.memory_watch.structures.drivers.compressors import has_zstd
from perf_middleware.memory_watch.structures.figures import StructureFigures, structure_families
from perf_middleware.memory_watch.structures.stores.chunk_kinds import chunk_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.families import Family
    from perf_middleware.memory_watch.structures.drivers.compressors import CodecName
    from perf_middleware.memory_watch.structures.stores.chunk_kinds import ChunkCodec

T = TypeVar("T")

CHUNK_ITEMS: Final = 1_024
ROWS_PER_CHUNK: Final = 128  # one look-up decodes all of them: 50 us; fewer compress less
EXTEND_STEP: Final = 1_024


class ChunkedList(Sequence[T]):
    """Append, read by index or slice, iterate, drop from the front; any thread may do any of them.

    `codec` says how items are kept: "plain" as they are, a typecode of `array` as numbers, "json"
    as rows of JSON, compressed by zstd where it is there and else by zlib (`compression`).  An item
    that its codec cannot keep raises TypeError, OverflowError or ValueError at the append.

    `chunk_items` is 1,024, and 128 for "json".  With `items_max` the oldest leave when it is
    reached.  Memory is given back by whole chunks.
    """

    def __init__(
        self,
        items: Iterable[T] = (),
        *,
        codec: ChunkCodec = "plain",
        chunk_items: int | None = None,
        items_max: int | None = None,
        compression: CodecName | None = None,
        level: int | None = None,
    ) -> None:
        if chunk_items is None:
            chunk_items = ROWS_PER_CHUNK if codec == "json" else CHUNK_ITEMS
        if chunk_items < 1 or (items_max is not None and items_max < 1):
            raise ValueError(f"chunk_items and items_max must be >= 1: {chunk_items}, {items_max}")
        self.codec: ChunkCodec = codec
        self.items_max = items_max
        self.dropped = 0  # items that left to make room for others, ever
        self._chunk_items = chunk_items
        if compression is None:
            compression = "zstd" if codec == "json" and has_zstd() else "zlib"
        self._kind = chunk_kind(codec, compression=compression, level=level)
        self._chunks: list[Any] = []
        self._chunks_gone = 0
        self._tail = self._kind.new_tail()
        self._first = 0
        self._sealed_bytes = 0
        self._is_sealing = False
        # Reentrant: a finalizer of a plain item may come back.  Items die after it was released.
        self._lock = RLock()
        self.extend(items)

    def __len__(self) -> int:
        with self._lock:
            return self._end_locked() - self._first

    def append(self, item: T) -> None:
        """At the end."""
        kept = self._kind.encoded_one(item)
        with self._lock:
            self._tail.append(kept)
            if len(self._tail) >= self._chunk_items:
                self._seal_locked()
            gone = self._keep_bound_locked()
        del gone

    def extend(self, items: Iterable[T]) -> None:
        """All of them at the end, in steps: those of other threads may come in between."""
        # What it appends to itself would come up again, and so on.
        iterator = islice(self, len(self)) if items is self else iter(items)
        while batch := list(islice(iterator, EXTEND_STEP)):
            kept = self._kind.encoded(batch)
            at = 0
            while at < len(kept):
                with self._lock:
                    room = self._chunk_items - len(self._tail)
                    self._tail.extend(kept[at : at + room])
                    if len(self._tail) >= self._chunk_items:
                        self._seal_locked()
                    gone = self._keep_bound_locked()
                at += room
                del gone

    def drop_front(self, count: int) -> int:
        """Forget the first `count` items, or all there are: how many that were."""
        if count < 0:
            raise ValueError(f"count must be >= 0: {count}")
        with self._lock:
            count = min(count, self._end_locked() - self._first)
            gone = self._drop_locked(count)
        del gone
        return count

    def clear(self) -> None:
        """Forget all."""
        self.drop_front(len(self))

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return self._slice(index)
        with self._lock:
            length = self._end_locked() - self._first
            if not -length <= index < length:
                raise IndexError(f"no item {index} in a ChunkedList of {length}")
            at = self._first + index + (length if index < 0 else 0)
            number, offset = divmod(at, self._chunk_items)
            chunk = self._chunk_locked(number)
            if chunk is self._tail:
                chunk, offset = chunk[offset : offset + 1], 0
        item: T = self._kind.item(self._kind.opened(chunk)[offset])
        return item

    def __iter__(self) -> Iterator[T]:
        """From the first item to what is the end when the iterator gets there, so also what is
        appended meanwhile.  What is dropped before its chunk is reached is left out.
        """
        at = self._first
        while True:
            with self._lock:
                at = max(at, self._first)
                if at >= self._end_locked():
                    return
                number, offset = divmod(at, self._chunk_items)
                chunk = self._chunk_locked(number)
                if chunk is self._tail:
                    chunk, offset = chunk[offset:], 0
            opened = self._kind.opened(chunk)
            if offset:
                opened = opened[offset:]
            at += len(opened)
            yield from self._kind.items(opened)

    # --- memory ----------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """What the sealed chunks take; of "plain" items only the references to them."""
        return self._sealed_bytes

    def figures(self) -> StructureFigures:
        """What it holds."""
        return StructureFigures(
            kind="chunked", entries=len(self), size_bytes=self._sealed_bytes,
            evictions=self.dropped,
        )  # fmt: skip

    def families(self, name: str) -> Iterable[Family]:
        """The figures of this list alone; of several together: `structure_families`."""
        return structure_families({name: self})

    def reset_counts(self) -> None:
        """Every count back to zero; the items stay."""
        self.dropped = 0

    # --- steps -----------------------------------------------------------------------------------

    def _end_locked(self) -> int:
        return (self._chunks_gone + len(self._chunks)) * self._chunk_items + len(self._tail)

    def _chunk_locked(self, number: int) -> Any:
        at = number - self._chunks_gone
        return self._chunks[at] if at < len(self._chunks) else self._tail

    def _seal_locked(self) -> None:
        if self._is_sealing:  # a finalizer came back in the middle, and has appended
            return
        self._is_sealing = True
        try:
            while len(self._tail) >= self._chunk_items:
                chunk = self._kind.sealed(self._tail[: self._chunk_items])
                self._chunks.append(chunk)
                del self._tail[: self._chunk_items]
                self._sealed_bytes += self._kind.size_bytes(chunk)
        finally:
            self._is_sealing = False

    def _keep_bound_locked(self) -> list[Any]:
        if self.items_max is None:
            return []
        over = self._end_locked() - self._first - self.items_max
        if over <= 0:
            return []
        self.dropped += over
        return self._drop_locked(over)

    def _drop_locked(self, count: int) -> list[Any]:
        """The chunks that are gone, to be let go of without the lock."""
        self._first += count
        passed = self._first // self._chunk_items - self._chunks_gone
        gone = self._chunks[:passed]
        if gone:
            del self._chunks[:passed]
            self._chunks_gone += len(gone)
            self._sealed_bytes -= sum(self._kind.size_bytes(chunk) for chunk in gone)
        if self._tail and self._first == self._end_locked() and not self._is_sealing:
            gone.append(self._tail)
            self._tail = self._kind.new_tail()
            self._chunks_gone += 1
            self._first = self._chunks_gone * self._chunk_items
        return gone

    def _slice(self, index: slice) -> list[T]:
        with self._lock:
            wanted = range(*index.indices(self._end_locked() - self._first))
            numbers = {(self._first + at) // self._chunk_items for at in wanted}
            chunks = {number: self._chunk_locked(number) for number in numbers}
            for number, chunk in chunks.items():
                if chunk is self._tail:
                    chunks[number] = chunk[:]
            first = self._first
        found: list[T] = []
        number_open, opened = -1, []  # type: tuple[int, Any]
        for at in wanted:
            number, offset = divmod(first + at, self._chunk_items)
            if number != number_open:
                number_open, opened = number, self._kind.opened(chunks[number])
            found.append(self._kind.item(opened[offset]))
        return found

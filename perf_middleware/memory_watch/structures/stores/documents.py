"""JSON documents by key, each kept as compressed bytes.

    store[key] = value    orjson -> text -> compressor -> 1 byte: which compressor, and its frame
    store[key]            ... and back: a new object each time, so nobody changes what is kept

`learn()` looks at what is there, builds a dictionary of what documents have in common, and encodes
all of them anew with it, one by one.  Meanwhile both compressors are known, and the byte in front
tells whose a frame is.  A text that compression would make longer is kept as it is.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.memory_watch.structures.drivers.compressors import (
    compressor,
    learned_dictionary,
)
from perf_middleware.memory_watch.structures.figures import StructureFigures, structure_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.families import Family
    from perf_middleware.memory_watch.structures.drivers.compressors import CodecName, Compressor

WhenFull: TypeAlias = Literal["refuse", "drop_oldest"]

_PLAIN: Final = 0  # the mark of a text that is kept as it is
_MARKS: Final = 255  # those of compressors go round from 1
FRAME_BYTES: Final = sys.getsizeof(b"") + 1  # what a frame takes beside its content: object, mark


class StoreFullError(PerfMiddlewareError):
    """A document does not fit into what `bytes_max` leaves; the store is as it was before.

    Raised by a store that refuses when it is full, and by any for a document that is larger than
    `bytes_max` alone.
    """

    def __init__(self, key: str, document_bytes: int, bytes_max: int) -> None:
        super().__init__(key, document_bytes, bytes_max)  # args repeat it: it survives pickling
        self.key = key
        self.document_bytes = document_bytes
        self.bytes_max = bytes_max

    def __str__(self) -> str:
        return (
            f"{self.key!r} takes {self.document_bytes} bytes: that is more than is left of "
            f"{self.bytes_max}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a dictionary has brought: bytes of all documents before and after."""

    documents: int
    dictionary_bytes: int
    before_bytes: int
    after_bytes: int


class CompressedJSONStore:
    """A map from str to JSON values; any thread may call anything.

    What goes in comes out as JSON has it: a tuple as a list, a datetime as text, nan as None.
    Numbers are those of orjson: integers up to 64 bits.  Other values raise TypeError at the put.

    `bytes_max` bounds `size_bytes`, what the documents take; keys and the map's own slots (some 150
    bytes an entry) are not in it.  When it is reached, `when_full` says what happens: "refuse"
    raises StoreFullError, "drop_oldest" lets go of what was put longest ago.

    `dictionary` is one that `learn` has built earlier, see `dictionary`.  Raises ValueError for a
    codec or level there is none of, ImportError where the codec's library is missing.
    """

    def __init__(
        self,
        *,
        codec: CodecName = "zlib",
        level: int | None = None,
        dictionary: bytes = b"",
        bytes_max: int | None = None,
        when_full: WhenFull = "refuse",
    ) -> None:
        if bytes_max is not None and bytes_max < 1:
            raise ValueError(f"bytes_max must be >= 1: {bytes_max}")
        if when_full not in {"refuse", "drop_oldest"}:
            raise ValueError(f"when_full is refuse or drop_oldest: {when_full!r}")
        self.codec: CodecName = codec
        self.bytes_max = bytes_max
        self.when_full: WhenFull = when_full
        self.dictionary = dictionary
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._level = level
        self._mark = 1
        self._compressors = {1: compressor(codec, level=level, dictionary=dictionary)}
        # Leaving at the front is quick in an OrderedDict only; it takes 90 bytes an entry more.
        self._drops = when_full == "drop_oldest"
        self._frames: dict[str, bytes] = OrderedDict() if self._drops else {}
        self._size_bytes = 0
        self._text_bytes = 0  # of what was put since the compressor is as it is, and ...
        self._written_bytes = 0  # ... what became of it
        self._is_learning = False
        # Reentrant: a collection of garbage may run a finalizer that comes back in the middle of a
        # step.  Each step changes frames and bytes by what it did itself, so both stay right.
        self._lock = RLock()

    # --- the map ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, key: object) -> bool:
        return key in self._frames

    def __iter__(self) -> Iterator[str]:
        """The keys of this moment: the store may change meanwhile."""
        return iter(self.keys())

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._frames)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Keys of this moment with their values, decoded one by one; what has gone is left out."""
        for key in self.keys():
            text = self._text(key)
            if text is not None:
                yield key, orjson.loads(text)

    def __setitem__(self, key: str, value: Any) -> None:
        """Insert or replace.  Raises TypeError for what is no JSON, StoreFullError."""
        if not isinstance(key, str):
            raise TypeError(f"a key is a str: {key!r}")
        self.put_text(key, orjson.dumps(value))

    def put_text(self, key: str, text: bytes) -> None:
        """Insert or replace a document that is JSON text already; nobody looks whether it is."""
        while True:
            with self._lock:
                mark = self._mark
                engine = self._compressors[mark]
            frame = self._frame(text, mark, engine)
            with self._lock:
                if mark == self._mark:  # else a dictionary was learned meanwhile
                    self._put_locked(key, frame)
                    self._text_bytes += len(text)
                    self._written_bytes += len(frame)
                    return

    def __getitem__(self, key: str) -> Any:
        text = self.get_text(key)
        if text is None:
            raise KeyError(key)
        return orjson.loads(text)

    def get(self, key: str, default: Any = None) -> Any:
        """A new object with the value, or `default`."""
        text = self.get_text(key)
        return default if text is None else orjson.loads(text)

    def get_text(self, key: str) -> bytes | None:
        """The value as JSON text: what an answer wants, without parsing it; None where none is."""
        text = self._text(key)
        if text is None:
            self.misses += 1
        else:
            self.hits += 1
        return text

    def pop(self, key: str, default: Any = None) -> Any:
        """Take a document out: its value, or `default`."""
        with self._lock:
            frame = self._remove_locked(key)
            engine = None if frame is None else self._compressors.get(frame[0])
        return default if frame is None else orjson.loads(self._read(frame, engine))

    def __delitem__(self, key: str) -> None:
        with self._lock:
            if self._remove_locked(key) is None:
                raise KeyError(key)

    def clear(self) -> None:
        """Take everything out."""
        with self._lock:
            self._frames.clear()
            self._size_bytes = 0

    # --- memory ----------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """What the documents take, as compressed bytes objects."""
        return self._size_bytes

    @property
    def ratio(self) -> float | None:
        """JSON text by what it became, of what was put or encoded anew since the dictionary is as
        it is; None before the first.
        """
        return self._text_bytes / self._written_bytes if self._written_bytes else None

    def learn(self, *, samples_max: int = 2_000) -> Learned:
        """Build a dictionary from what is there, and encode all of it anew.

        Takes some 30 us a document in this thread; others may use the store meanwhile.  Worth it
        for many documents of a kind below some kB, once there are a few hundred of them.  With too
        few to learn from nothing changes.  Where a dictionary fits worse than the one before, what
        leaves is the oldest; a store that refuses keeps all, and may be above `bytes_max` then.
        Raises RuntimeError while another thread does it.
        """
        with self._lock:
            if self._is_learning:
                raise RuntimeError("another thread is learning a dictionary for this store")
            self._is_learning = True
            before_bytes = self._size_bytes
        try:
            dictionary = learned_dictionary(self.codec, self._samples(samples_max))
            if dictionary:
                self._begin(dictionary)
                self._encode_anew()
        finally:
            self._is_learning = False
        return Learned(
            documents=len(self), dictionary_bytes=len(dictionary),
            before_bytes=before_bytes, after_bytes=self._size_bytes,
        )  # fmt: skip

    def shrink(self, share: float) -> int:
        """Let go of `share` (0 to 1) of the bytes, the oldest first: how many that were.

        A store that refuses when it is full holds what nobody else does: it keeps all, and says 0.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is from 0 to 1: {share}")
        if not self._drops:
            return 0
        with self._lock:
            before_bytes = self._size_bytes
            self._drop_to_locked(round(before_bytes * (1 - share)))
            return before_bytes - self._size_bytes

    def figures(self) -> StructureFigures:
        """What it holds and has counted."""
        return StructureFigures(
            kind="json", entries=len(self), size_bytes=self._size_bytes,
            hits=self.hits, misses=self.misses, evictions=self.evictions,
        )  # fmt: skip

    def families(self, name: str) -> Iterable[Family]:
        """The figures of this store alone; of several together: `structure_families`."""
        return structure_families({name: self})

    def reset_counts(self) -> None:
        """Every count back to zero; what is held stays."""
        self.hits = self.misses = self.evictions = 0

    # --- steps -----------------------------------------------------------------------------------

    def _text(self, key: str) -> bytes | None:
        with self._lock:
            frame = self._frames.get(key)
            engine = None if frame is None else self._compressors.get(frame[0])
        return None if frame is None else self._read(frame, engine)

    @staticmethod
    def _frame(text: bytes, mark: int, engine: Compressor) -> bytes:
        encoded = engine.encode(text)
        if len(encoded) < len(text):
            return bytes((mark,)) + encoded
        return bytes((_PLAIN,)) + text

    @staticmethod
    def _read(frame: bytes, engine: Compressor | None) -> bytes:
        """`engine` is that of the frame's mark; a text that is kept as it is has none."""
        return frame[1:] if engine is None else engine.decode(memoryview(frame)[1:])

    def _put_locked(self, key: str, frame: bytes) -> None:
        new_bytes = len(frame) + FRAME_BYTES - 1
        before = self._frames.get(key)
        before_bytes = 0 if before is None else len(before) + FRAME_BYTES - 1
        if self.bytes_max is not None:
            room_bytes = self.bytes_max - (0 if self._drops else self._size_bytes - before_bytes)
            if new_bytes > room_bytes:
                raise StoreFullError(key, new_bytes, self.bytes_max)
        self._remove_locked(key)  # it is among the youngest again
        while self._frames.setdefault(key, frame) is not frame:
            self._remove_locked(key)  # a finalizer has put it meanwhile: its bytes count
        self._size_bytes += new_bytes
        if self._drops and self.bytes_max is not None:
            self._drop_to_locked(self.bytes_max)

    def _drop_to_locked(self, bytes_max: int) -> None:
        while self._size_bytes > bytes_max:
            self._remove_locked(next(iter(self._frames)))
            self.evictions += 1

    def _remove_locked(self, key: str) -> bytes | None:
        frame = self._frames.pop(key, None)
        if frame is not None:
            self._size_bytes -= len(frame) + FRAME_BYTES - 1
        return frame

    def _samples(self, samples_max: int) -> list[bytes]:
        """Texts from all over the store, no more than so many."""
        keys = self.keys()
        step = max(1, -(-len(keys) // max(1, samples_max)))
        texts = (self._text(key) for key in islice(keys, 0, None, step))
        return [text for text in texts if text is not None]

    def _begin(self, dictionary: bytes) -> None:
        """From now on all is encoded with `dictionary`."""
        engine = compressor(self.codec, level=self._level, dictionary=dictionary)
        with self._lock:
            self._mark = self._mark % _MARKS + 1
            self._compressors[self._mark] = engine
            self.dictionary = dictionary
            self._text_bytes = self._written_bytes = 0

    def _encode_anew(self) -> None:
        """All that older compressors have written; then nobody needs them any more."""
        mark = self._mark  # only this thread changes it: it is the one that learns
        engine = self._compressors[mark]
        for key in self.keys():
            with self._lock:
                frame = self._frames.get(key)
                written_by = None if frame is None else self._compressors.get(frame[0])
            if frame is None or frame[0] == mark:
                continue
            text = self._read(frame, written_by)
            anew = self._frame(text, mark, engine)
            with self._lock:
                if self._frames.get(key) is frame:  # else it was replaced or taken out
                    self._frames[key] = anew
                    self._size_bytes += len(anew) - len(frame)
                    self._text_bytes += len(text)
                    self._written_bytes += len(anew)
                    if self._drops and self.bytes_max is not None:
                        self._drop_to_locked(self.bytes_max)
        with self._lock:
            self._compressors = {mark: engine}

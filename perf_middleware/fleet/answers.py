"""Answers of a Redis server from the bytes that come: values out, nothing is waited for here.

What redis-py reads through a stream, three awaits for each answer, is here one call for each piece
that the socket brings: half of what a look-up costs.  Only what servers answer to us is known; what
is not, is an error.
Source: Redis serialization protocol 3 (and 2), redis.io/docs/reference/protocol-spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_BYTES_MAX: Final = 512 << 20  # of one text: what a server keeps at most
ITEMS_MAX: Final = 1 << 20
DEPTH_MAX: Final = 8
LINE_BYTES_MAX: Final = 64 << 10


class GarbageError(ValueError):
    """Bytes that are no answer of a Redis server."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A message of a channel, among the answers."""

    parts: list[Any]


class AnswerReader:
    """Cuts what comes into answers; `error_of` makes the error that a server's text tells of."""

    def __init__(self, error_of: Callable[[str], Exception]) -> None:
        self._error_of = error_of
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 1
        """So many bytes there must be before it is worth looking again."""

    def feed(self, data: bytes) -> list[Any]:
        """The answers that are whole now, in their order; an error of the server is one of them.

        Raises GarbageError; nothing can be read after that.
        """
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        answers = []
        at = 0
        try:
            while at < len(data):
                answer, at = self._read(data, at, 0)
                answers.append(answer)
        except _TooFewError as few:
            rest = data[at:]
            self._pieces, self._have, self._need = [rest], len(rest), few.need - at
        return answers

    def _read(self, data: bytes, at: int, depth: int) -> tuple[Any, int]:
        end = data.find(b"\r\n", at)
        if end < 0:
            if len(data) - at > LINE_BYTES_MAX:
                raise GarbageError("a line without an end")
            raise _TooFewError(len(data) + 1)
        kind, line, after = data[at], data[at + 1 : end], end + 2
        if kind in _TEXTS:
            length = _number(line)
            if length < 0:
                return None, after
            stop = after + length
            if length > ANSWER_BYTES_MAX:
                raise GarbageError(f"a text of {length} bytes")
            if len(data) < stop + 2:
                raise _TooFewError(stop + 2)
            text = data[after:stop]
            if kind == _TEXT:
                return text, stop + 2
            if kind == _VERBATIM:
                return text[4:], stop + 2
            return self._error_of(text.decode("utf-8", "replace")), stop + 2
        if kind in _SEVERAL:
            count = _number(line)
            if count < 0:
                return None, after
            if count > ITEMS_MAX or depth >= DEPTH_MAX:
                raise GarbageError(f"{count} items, {depth} deep")
            items = []
            for _ in range(count * 2 if kind == _MAP else count):
                item, after = self._read(data, after, depth + 1)
                items.append(item)
            if kind == _MAP:
                return list(zip(items[::2], items[1::2], strict=True)), after
            return Pushed(items) if kind == _PUSH else items, after
        if kind == _ERROR:
            return self._error_of(line.decode("utf-8", "replace")), after
        if kind == _STATUS:
            return line, after
        if kind in _NUMBERS:
            return _number(line), after
        if kind == _NULL:
            return None, after
        if kind == _TRUTH:
            return line == b"t", after
        if kind == _REAL:
            try:
                return float(line), after
            except ValueError:
                raise GarbageError(f"no number: {line[:40]!r}") from None
        raise GarbageError(f"no answer: {data[at : at + 40]!r}")


class _TooFewError(Exception):
    """An answer goes on beyond the bytes that are there."""

    def __init__(self, need: int) -> None:
        super().__init__(need)
        self.need = need


def _number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise GarbageError(f"no number: {line[:40]!r}") from None


_TEXT, _VERBATIM, _TEXT_ERROR = b"$=!"
_ARRAY, _SET, _PUSH, _MAP = b"*~>%"
_ERROR, _STATUS, _NULL, _TRUTH, _REAL = b"-+_#,"
_TEXTS: Final = frozenset(b"$=!")
_SEVERAL: Final = frozenset(b"*~>%")
_NUMBERS: Final = frozenset(b":(")

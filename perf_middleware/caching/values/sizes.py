"""What a value takes in memory, bytes: exact where it is small, an estimate where it is large.

Of a long container SAMPLE_MAX of its values, evenly spaced, stand for the others.  An object that
is shared inside one value counts once, a text or a number each time: rather too much than too few.
At most NODES_MAX objects are looked at: under 1 ms.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLE_MAX: Final = 64
NODES_MAX: Final = 1_000
DEPTH_MAX: Final = 20
_GC_BYTES: Final = 16  # before each object that the collector knows; __sizeof__ leaves them out
_LEAVES: Final = frozenset({str, bytes, int, float, bool, type(None), bytearray, complex})


def size_bytes(value: object) -> int:
    """About how many bytes `value` and all that it holds take."""
    return _Measuring().of(value, 0)


class _Measuring:
    __slots__ = ("left", "seen")

    def __init__(self) -> None:
        self.left = NODES_MAX
        self.seen: set[int] = set()

    def of(self, value: Any, depth: int) -> int:
        kind = type(value)
        if kind in _LEAVES:
            return int(value.__sizeof__())
        if id(value) in self.seen or isinstance(value, type):
            return 0
        self.seen.add(id(value))
        self.left -= 1
        try:
            size = int(value.__sizeof__()) + _GC_BYTES
        except Exception:  # noqa: BLE001 - any object's own method
            size = 64
        if depth >= DEPTH_MAX or self.left < 0:
            return size
        if isinstance(value, dict):
            size += self._all(value.keys(), len(value), depth)
            return size + self._all(value.values(), len(value), depth)
        if isinstance(value, list | tuple | set | frozenset):
            size += self._all(value, len(value), depth)
        inside = getattr(value, "__dict__", None)
        if type(inside) is dict:
            size += self.of(inside, depth + 1)
        for base in kind.__mro__:
            names = base.__dict__.get("__slots__", ())
            for name in (names,) if isinstance(names, str) else tuple(names):
                own = getattr(value, name, None) if name[:2] != "__" else None
                if own is not None:
                    size += self.of(own, depth + 1)
        return size

    def _all(self, values: Iterable[Any], count: int, depth: int) -> int:
        if count <= SAMPLE_MAX:
            return sum(self.of(inner, depth + 1) for inner in values)
        step = -(-count // SAMPLE_MAX)
        sample = [self.of(inner, depth + 1) for inner in islice(values, 0, None, step)]
        return sum(sample) * count // len(sample)

"""One value of a row, as it may be kept: what comes out is what went in, of the same type.

Drivers and SQLAlchemy hand out their own kinds of some types (asyncpg's UUID, dicts and lists that
tell of their changes): these become what they stand for.  What is none of the known types is not
kept, and `Unstorable` names it.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy.ext.mutable import Mutable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNCHANGING: Final = frozenset(
    {str, bytes, int, float, bool, NoneType, Decimal, UUID, datetime, date, time, timedelta}
)
_INSIDE_MAX: Final = 64  # levels of a JSON value


class Unstorable(Exception):  # noqa: N818 - an answer within this feature: it is not kept
    """A value of a type that does not come back."""

    def __init__(self, value: object) -> None:
        super().__init__(type(value).__name__)
        self.kind = f"{type(value).__module__}.{type(value).__qualname__}"


class Cells:
    """Makes the cells of one answer; `is_unchanging` while nobody could change any of them."""

    __slots__ = ("_register", "is_unchanging")

    def __init__(self, register: Callable[[type], bool]) -> None:
        self._register = register
        self.is_unchanging = True

    def row(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """The cells of a row.  Raises Unstorable."""
        if _UNCHANGING.issuperset(map(type, row)):
            return tuple(row)
        return tuple([self.cell(value) for value in row])

    def cell(self, value: Any, depth: int = 0) -> Any:
        """One cell.  Raises Unstorable."""
        kind = type(value)
        if kind in _UNCHANGING:
            return value
        if isinstance(value, Enum):
            if not self._register(kind):
                raise Unstorable(value)
            return value
        if isinstance(value, UUID):
            return UUID(int=value.int)
        if isinstance(value, memoryview):
            return bytes(value)
        if depth > _INSIDE_MAX:
            raise Unstorable(value)
        self.is_unchanging = False
        if isinstance(value, Mutable):
            value = _as_plain(value)
            kind = type(value)
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            return kind([self.cell(inner, depth + 1) for inner in value])
        if kind is dict:
            return {name: self.cell(inner, depth + 1) for name, inner in value.items()}
        if kind is bytearray:
            return bytearray(value)
        # Of such a class its objects go as they are: a dataclass of PostgreSQL's ranges, say.
        if (is_dataclass(kind) or hasattr(kind, "model_fields")) and self._register(kind):
            return value
        raise Unstorable(value)


def _as_plain(value: Any) -> Any:
    """What an object that tells of its changes stands for; a new one is made when it comes back."""
    for plain in (dict, list, set):
        if isinstance(value, plain):
            return plain(value)
    return value

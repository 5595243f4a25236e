"""A value in memory: how long it is good for, and how each caller gets one of its own.

What nobody can change is kept and given as it is.  Of anything else a copy is kept and each caller
gets another: who sorts the list he got has changed nobody else's.

    str, 5, frozen dataclass, tuple of these    as it is               0 us
    list, dict, set of these                    its own `copy`         0.05 us for ten
    anything else                               pickled when kept,     a third to a tenth of
                                                unpickled for each     copy.deepcopy
    what cannot be pickled                      copy.deepcopy; or else as it is

The pickle never leaves the process.  `copy=False` keeps and gives anything as it is.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from perf_middleware.caching.values.sizes import size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NEVER_US: Final = 1 << 62
"""A moment that does not come."""
EARLY_WINDOW: Final = 7  # times what it takes to make; a draw beyond has a chance below 1 in 1,000
ENTRY_BYTES: Final = 700  # what an entry takes beside its key and its value: Kept, order, expiry
_LOOKED_AT_MAX: Final = 1_000

_IMMUTABLE: Final = frozenset(
    {str, bytes, int, float, bool, complex, NoneType, Decimal, Fraction, UUID, datetime, date, time,
     timedelta, timezone, ZoneInfo, range, type, FunctionType, BuiltinFunctionType, ModuleType}
)  # fmt: skip
_COPIES: Final[dict[type, Callable[[Any], Any]]] = {
    list: list.copy, dict: dict.copy, set: set.copy, bytearray: bytearray.copy, deque: deque.copy,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms a value is kept.

    `ttl_us` None: until it is invalidated or has to make room.  For `stale_us` after that it may
    stand in for a function that fails.  `early` and `took_us` say how early it is made anew.
    """

    ttl_us: int | None
    stale_us: int = 0
    tags: tuple[str, ...] = ()
    took_us: int = 0
    early: float = 0.0
    copy: bool = True
    heard: Any = None
    """How much was heard of other processes when the value began to be made (`ValueStore.heard`);
    None: it is as new as can be."""


class Kept:
    """One value and its times, in microseconds of the process's clock."""

    __slots__ = (
        "early_from_us", "ends_us", "fresh_until_us", "held", "size_bytes", "tags", "thaw",
        "took_us",
    )  # fmt: skip

    def __init__(self, value: object, terms: Terms, *, now_us: int) -> None:
        self.held, self.thaw, self.size_bytes = frozen(value, copy=terms.copy)
        self.tags = terms.tags
        self.took_us = terms.took_us
        if terms.ttl_us is None:
            self.fresh_until_us = self.ends_us = self.early_from_us = NEVER_US
            return
        self.fresh_until_us = now_us + terms.ttl_us
        self.ends_us = self.fresh_until_us + terms.stale_us
        self.early_from_us = self.fresh_until_us - early_window_us(terms)

    def give(self) -> Any:
        """The value, for one caller."""
        return self.held if self.thaw is None else self.thaw(self.held)


def early_window_us(terms: Terms) -> int:
    """How long before its end a value may be made anew; 0 for one without end."""
    if terms.ttl_us is None:
        return 0
    return min(int(terms.took_us * terms.early * EARLY_WINDOW), terms.ttl_us // 2)


def frozen(value: Any, *, copy: bool) -> tuple[Any, Callable[[Any], Any] | None, int]:
    """What to keep of `value`, what makes a caller's own of that (None: nothing), its bytes."""
    if not copy or is_immutable(value):
        return value, None, size_bytes(value)
    copied = _COPIES.get(type(value))
    if copied is not None and _IMMUTABLE.issuperset(map(type, _inside(value))):
        held = copied(value)
        return held, copied, size_bytes(held)
    try:
        pickled = pickle.dumps(value, protocol=5)
        if type(pickle.loads(pickled)) is not type(value):  # noqa: S301 - our own, just written
            return _deeply_copied(value)
    except Exception:  # noqa: BLE001 - any object's own code
        return _deeply_copied(value)
    return pickled, pickle.loads, size_bytes(pickled)


def _deeply_copied(value: Any) -> tuple[Any, Callable[[Any], Any] | None, int]:
    try:
        held = copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - any object's own code
        return value, None, size_bytes(value)  # a connection, a lock: shared is what it is for
    return held, copy.deepcopy, size_bytes(held)


def is_spent_by_reading(value: object) -> bool:
    """Whether a second caller would find nothing left of it: an iterator, a coroutine."""
    kind = type(value)
    if kind in _IMMUTABLE or kind in _COPIES:  # each of the questions below takes 0.3 us
        return False
    return isinstance(value, Iterator | AsyncIterator | Awaitable)


def is_immutable(value: object) -> bool:
    """Whether nobody can change `value`, nor what is in it."""
    return _is_immutable(value, [_LOOKED_AT_MAX])


def _is_immutable(value: Any, left: list[int]) -> bool:
    kind = type(value)
    if kind in _IMMUTABLE:
        return True
    if kind is tuple or kind is frozenset:
        if _IMMUTABLE.issuperset(map(type, value)):
            return True
        inside: list[Any] = list(value) if len(value) <= left[0] else []
        left[0] -= len(value)
        return left[0] >= 0 and all(_is_immutable(inner, left) for inner in inside)
    if isinstance(value, Enum | PurePath):
        return True
    left[0] -= 1
    if left[0] < 0:
        return False
    if is_dataclass(kind):
        # Its own: a class below a frozen dataclass, and none itself, may be changed.
        params = kind.__dict__.get("__dataclass_params__")
        names = [field.name for field in fields(kind)]
        return (
            params is not None
            and params.frozen
            and _holds_only(value, names)
            and all(_is_immutable(getattr(value, name, None), left) for name in names)
        )
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return _holds_only(value, ()) and all(_is_immutable(inner, left) for inner in value)
    return False


def _holds_only(value: Any, names: Iterable[str]) -> bool:
    """Whether `value` has no attributes but these, and will have none: a cached property puts there
    what all callers would share then.
    """
    inside = getattr(value, "__dict__", None)
    if inside is None:
        return True
    return inside.keys() <= set(names) and not any(
        isinstance(attribute, functools.cached_property)
        for base in type(value).__mro__
        for attribute in vars(base).values()
    )


def _inside(value: Any) -> Any:
    # The keys of a dict are hashable, and what is hashable and yet changes is its class's affair.
    return value.values() if type(value) is dict else value

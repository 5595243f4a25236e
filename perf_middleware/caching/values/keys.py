"""Arguments as text: the same value gives the same text in every process, other values other text.

    5  True  1.0  'ann'  b'x'  None      as Python writes them, so no two types share a text
    shop.Color.RED                       an enum, by its class and name
    shop.Filter(owner=5,tags=['a'])      a dataclass, a pydantic model: by its fields
    {'a'}  {'a': 1}                      sorted by their texts

Each text is delimited by itself (quotes, brackets), so texts that follow each other stay apart.
Nothing is asked for its `repr` but types known here: that of any other object may name its address.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from pathlib import PurePath
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Rule: TypeAlias = "Callable[[Any], Any] | None"
"""From an object to what names it in keys; None leaves objects of its type out."""

KEY_CHARS_MAX: Final = 200  # what memcached (250) and people can read
NODES_MAX: Final = 100_000  # of one argument: about 50 ms
DEPTH_MAX: Final = 64
NAMES_ITSELF: Final = "__cache_key__"
LEFT_OUT: Final = "-"  # no other text
_DIGEST_BYTES: Final = 16
_BEYOND_FIELDS: Final = ("__pydantic_extra__", "__pydantic_private__")
"""By what a pydantic model is compared beside its fields."""

PLAIN: Final = frozenset({str, int, bool, float, bytes, NoneType})
"""Types whose `repr` is their text (but for ints of thousands of digits)."""

_BY_REPR: Final = frozenset(
    {float, bytes, bool, NoneType, str, complex, Decimal, Fraction, UUID, bytearray, range}
)
_IN_ORDER: Final[dict[type, tuple[str, str]]] = {list: ("[", "]"), tuple: ("(", ")")}


class Unkeyable(Exception):  # noqa: N818 - told to the caller as an UnkeyableArgumentError
    """`value` cannot be told apart by text; `path` leads to it inside the argument."""

    def __init__(self, value: object, why: str, path: str = "") -> None:
        super().__init__(value, why, path)
        self.value = value
        self.why = why
        self.path = path


def shortened(key: str) -> str:
    """`key`, or where it is longer than KEY_CHARS_MAX its beginning and a digest of all of it.

    A shortened key is one character longer than any that is not: no two of them are the same.
    """
    if len(key) <= KEY_CHARS_MAX:
        return key
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{key[: KEY_CHARS_MAX - len(digest)]}#{digest}"


def name_of(cls: type) -> str:
    """Where a class is at home, the same in every process."""
    return f"{cls.__module__}.{cls.__qualname__}"


class Texts:
    """Makes texts; `rules` say by class (or one of its bases) what names an object."""

    __slots__ = ("rules",)

    def __init__(self) -> None:
        self.rules: dict[type, Rule] = {}

    def of(self, value: object) -> str:
        """The text of `value`.  Raises Unkeyable."""
        return _Writing(self.rules).text(value, 0)


class _Writing:
    """One text on its way: `left` bounds the work."""

    __slots__ = ("left", "rules")

    def __init__(self, rules: dict[type, Rule]) -> None:
        self.rules = rules
        self.left = NODES_MAX

    def text(self, value: Any, depth: int) -> str:
        kind = type(value)
        if kind in _BY_REPR:
            try:
                return repr(value)
            except ValueError:  # of a fraction or a range with very long whole numbers
                raise Unkeyable(value, "is too long a number") from None
        if kind is int:
            return _integer(value)
        if depth > DEPTH_MAX:
            raise Unkeyable(value, f"is nested more than {DEPTH_MAX} deep")
        for rule_text in self._by_rule(value, kind, depth):
            return rule_text
        text = self._container(value, kind, depth) or self._scalar(value, kind, depth)
        if text is None:
            text = self._fields(value, kind, depth)
        if text is None:
            raise Unkeyable(value, "cannot be part of a key")
        return text

    def _by_rule(self, value: Any, kind: type, depth: int) -> Iterable[str]:
        for base in kind.__mro__ if self.rules else ():
            if base in self.rules:
                rule = self.rules[base]
                if rule is None:
                    return (LEFT_OUT,)
                return (f"{name_of(kind)}<{self.text(rule(value), depth + 1)}>",)
        named = getattr(kind, NAMES_ITSELF, None)
        if named is None:
            return ()
        own = getattr(value, NAMES_ITSELF)
        return (f"{name_of(kind)}<{self.text(own() if callable(own) else own, depth + 1)}>",)

    def _scalar(self, value: Any, kind: type, depth: int) -> str | None:
        text: str | None = None
        if isinstance(value, Enum):
            if value.name in type(value).__members__:
                return f"{name_of(kind)}.{value.name}"
            text = self.text(value.value, depth + 1)  # several flags at once
        elif isinstance(value, datetime | time):
            text = value.isoformat() + (" fold" if value.fold else "") + _zone(value)
        elif isinstance(value, date):
            text = value.isoformat()
        elif isinstance(value, timedelta):
            text = f"{value.days}d{value.seconds}s{value.microseconds}us"
        elif isinstance(value, PurePath):
            text = repr(str(value))
        elif isinstance(value, type):
            text = name_of(value)
        elif isinstance(value, memoryview):
            text = repr(value.tobytes())
        elif isinstance(value, str):
            text = str.__repr__(value)
        elif isinstance(value, bytes):
            text = bytes.__repr__(value)
        elif isinstance(value, int):
            text = _integer(int(value))
        elif isinstance(value, float):
            text = float.__repr__(value)
        elif isinstance(value, Decimal):
            text = repr(str(value))
        elif isinstance(value, UUID):
            text = value.hex
        return None if text is None else f"{name_of(kind)}({text})"

    def _container(self, value: Any, kind: type, depth: int) -> str | None:
        if kind in _IN_ORDER:
            opening, closing = _IN_ORDER[kind]
            return opening + ",".join(self._each(value, depth)) + closing
        if kind is dict:
            return "{" + ",".join(sorted(self._pairs(value.items(), depth))) + "}"
        if kind is set:
            return "set{" + ",".join(sorted(self._each(value, depth))) + "}"
        if kind is frozenset:
            return "frozenset{" + ",".join(sorted(self._each(value, depth))) + "}"
        inside: Iterable[str]
        if kind is deque:
            inside = self._each(value, depth)
        elif kind is OrderedDict:
            inside = self._pairs(value.items(), depth)
        elif kind in (Counter, defaultdict, MappingProxyType):
            inside = sorted(self._pairs(value.items(), depth))
        elif isinstance(value, tuple) and hasattr(kind, "_fields"):
            inside = self._each(value, depth)
        else:
            return None
        return f"{name_of(kind)}({','.join(inside)})"

    def _fields(self, value: Any, kind: type, depth: int) -> str | None:
        """Of a dataclass, a pydantic model, a class of attrs: the fields that make it equal."""
        if is_dataclass(kind):
            names = [field.name for field in fields(kind) if field.compare]
        elif isinstance(models := getattr(kind, "model_fields", None), dict):
            names = list(models)
        elif (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
            names = [attribute.name for attribute in attributes if attribute.eq]
        else:
            return None
        inside = [
            f"{name}={self._inner(getattr(value, name), f'.{name}', depth)}"
            for name in names
            if hasattr(value, name)
        ]
        inside += [
            f"{name}={self._inner(dict(given), '', depth)}"
            for name in _BEYOND_FIELDS
            if (given := getattr(value, name, None))
        ]
        return f"{name_of(kind)}({','.join(inside)})"

    def _each(self, values: Iterable[Any], depth: int) -> list[str]:
        return [self._inner(value, f"[{at}]", depth) for at, value in enumerate(values)]

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> list[str]:
        return [
            f"{self._inner(key, ' key', depth)}:{self._inner(value, _at(key), depth)}"
            for key, value in pairs
        ]

    def _inner(self, value: Any, at: str, depth: int) -> str:
        self.left -= 1
        if self.left < 0:
            raise Unkeyable(value, f"has more than {NODES_MAX} values")
        try:
            return self.text(value, depth + 1)
        except Unkeyable as found:
            if len(found.path) < KEY_CHARS_MAX:
                found.path = at + found.path
            raise


def _at(key: object) -> str:
    return f"[{key!r:.40}]" if type(key) in (str, int) else "[…]"


def _integer(value: int) -> str:
    try:
        return repr(value)
    except ValueError:  # Python refuses to write thousands of digits
        return hex(value)


def _zone(value: datetime | time) -> str:
    """What makes two of the same wall time and offset differ: the zone that reckons with them."""
    zone = value.tzinfo
    if zone is None:
        return ""
    if type(zone) is timezone:
        return " utc"  # an offset and nothing else: isoformat has told it
    key = getattr(zone, "key", None)  # zoneinfo's name
    if not isinstance(key, str):
        key = zone.tzname(value if isinstance(value, datetime) else None)
    return f" {name_of(type(zone))} {key}"

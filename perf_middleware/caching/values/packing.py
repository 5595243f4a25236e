"""Values as bytes and back: what was put in comes out, with its types, or nothing does.

    version   flags      body
    0x01      zlib       MessagePack, with an extension for each type that it has not
              pickle     HMAC-SHA256 of all else and the key, then a pickle

Any bytes may be read: a version, a type, a class or a shape that is not known, a damaged or a
forged body is a miss.  No name in them is imported and no code runs, but what a pickle says, and
that only with a signature of this service's own key, where it has one.

Containers of scalars pass as they are; what is left costs about 0.2 us a value.
Sources: MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md); RFC 2104 (HMAC).
"""

from __future__ import annotations

import hmac
import pickle
import struct
import zlib
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from types import NoneType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack

from perf_middleware.caching.values.keys import name_of
from perf_middleware.errors import UnpackableValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.caching.values.classes import Classes

VERSION: Final = 1
COMPRESS_BYTES_MIN: Final = 1024
UNPACKED_BYTES_MAX: Final = 64 << 20  # of a body that was compressed
DEPTH_MAX: Final = 64
NODES_MAX: Final = 2_000_000  # values written one by one; what refers to itself twice grows fast
MISS: Final = object()
"""What `unpack` returns for bytes that are no value."""

_ZLIB: Final = 1
_PICKLE: Final = 2
_SIGNATURE_BYTES: Final = 32
_ZLIB_LEVEL: Final = 1  # 6 takes three times as long for a tenth less

_SCALARS: Final = frozenset({str, int, float, bool, bytes, NoneType})
_TEXT: Final = frozenset({str})

# The numbers are in stored bytes: never to be given to another type.
_OBJECT, _TUPLE, _SET, _FROZENSET, _DICT, _DEQUE, _ORDERED = 1, 2, 3, 4, 5, 6, 7
_BIG_INT, _DECIMAL, _UUID, _COMPLEX, _FRACTION, _BYTEARRAY, _SURROGATES = 8, 9, 10, 11, 12, 13, 14
_DATETIME, _DATE, _TIME, _TIMEDELTA, _TIMEZONE, _ZONE = 15, 16, 17, 18, 19, 20


class Packer:
    """Writes and reads values; objects of the classes that `classes` allows.

    `pickle_key` switches pickles on, for what nothing else can hold.
    """

    def __init__(
        self,
        classes: Classes,
        *,
        compress_bytes_min: int | None = COMPRESS_BYTES_MIN,
        pickle_key: bytes | None = None,
    ) -> None:
        if pickle_key is not None and len(pickle_key) < 16:
            raise ValueError("pickle_key must have at least 16 bytes")
        self._classes = classes
        self.compress_bytes_min = compress_bytes_min
        self.pickle_key = pickle_key

    def pack(self, value: object, *, key: str) -> bytes:
        """`value` as bytes that are to be stored under `key`.

        Raises UnpackableValueError for what could not be read back as what it is.
        """
        flags = 0
        try:
            body = self._packed(value)
        except UnpackableValueError:
            if self.pickle_key is None:
                raise
            flags, body = _PICKLE, _pickled(value)
        if self.compress_bytes_min is not None and len(body) >= self.compress_bytes_min:
            smaller = zlib.compress(body, _ZLIB_LEVEL)
            if len(smaller) < len(body):
                flags, body = flags | _ZLIB, smaller
        head = bytes((VERSION, flags))
        if flags & _PICKLE:
            body = self._signature(head + body, key) + body
        return head + body

    def unpack(self, stored: bytes, *, key: str) -> Any:
        """The value in what was stored under `key`, or MISS; never raises."""
        try:
            return self._unpacked(memoryview(stored), key)
        except Exception:  # noqa: BLE001 - of bytes from elsewhere anything may be wrong
            return MISS

    def _unpacked(self, stored: memoryview, key: str) -> Any:
        if len(stored) < 2 or stored[0] != VERSION:
            return MISS
        flags, body = stored[1], stored[2:]
        if flags & ~(_ZLIB | _PICKLE):
            return MISS
        if flags & _PICKLE:
            signature, body = body[:_SIGNATURE_BYTES], body[_SIGNATURE_BYTES:]
            if self.pickle_key is None or not hmac.compare_digest(
                signature, self._signature(bytes(stored[:2]) + body, key)
            ):
                return MISS
        if flags & _ZLIB:
            inflating = zlib.decompressobj()
            body = memoryview(inflating.decompress(body, UNPACKED_BYTES_MAX))
            if not inflating.eof or inflating.unused_data:
                return MISS
        if flags & _PICKLE:
            return pickle.loads(body)  # noqa: S301 - signed
        return _Reading(self._classes).read(bytes(body))

    def _packed(self, value: object) -> bytes:
        try:
            return ormsgpack.packb(_Writing(self._classes, exact=False).plain(value, 0))
        except UnpackableValueError:
            raise
        except TypeError:  # a whole number or a text that MessagePack has not
            pass
        try:
            return ormsgpack.packb(_Writing(self._classes, exact=True).plain(value, 0))
        except UnpackableValueError:
            raise
        except TypeError as error:
            raise UnpackableValueError(name_of(type(value)), str(error)) from None

    def _signature(self, signed: bytes, key: str) -> bytes:
        # The key is signed too: what is another entry's value must not be read as this one's.
        assert self.pickle_key is not None  # noqa: S101
        about = key.encode("utf-8", "surrogatepass")
        return hmac.digest(self.pickle_key, len(about).to_bytes(8) + about + signed, sha256)


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as error:
        raise UnpackableValueError(name_of(type(value)), f"no pickle: {error}") from error


class _Writing:
    """One value on its way; `exact` looks at each number and text."""

    __slots__ = ("_classes", "_exact", "_left")

    def __init__(self, classes: Classes, *, exact: bool) -> None:
        self._classes = classes
        self._exact = exact
        self._left = NODES_MAX

    def plain(self, value: Any, depth: int) -> Any:
        """`value` in terms that MessagePack has."""
        kind = type(value)
        if kind in _SCALARS:
            return self._scalar(value) if self._exact else value
        self._left -= 1
        if depth > DEPTH_MAX or self._left < 0:
            what = f"{DEPTH_MAX} deep" if self._left >= 0 else f"{NODES_MAX} values"
            raise UnpackableValueError(name_of(kind), f"more than {what}")
        if kind is list:
            if not self._exact and _SCALARS.issuperset(map(type, value)):
                return value
            return [self.plain(inner, depth + 1) for inner in value]
        if kind is dict and _TEXT.issuperset(map(type, value)):
            if not self._exact:
                if _SCALARS.issuperset(map(type, value.values())):
                    return value
                return {name: self.plain(inner, depth + 1) for name, inner in value.items()}
            if all(name.isascii() for name in value):
                return {name: self.plain(inner, depth + 1) for name, inner in value.items()}
        write = _WRITERS.get(kind)
        if write is not None:
            number, state = write(value)
        elif (allowed := self._classes.of(kind)) is not None:
            number = _OBJECT
            try:
                state = [allowed.name, allowed.take(value)]
            except UnpackableValueError:
                raise
            except Exception as error:
                raise UnpackableValueError(name_of(kind), f"{error!r}") from error
        else:
            raise UnpackableValueError(
                name_of(kind),
                "not a type that comes back; annotate what the function returns, or register() it",
            )
        if type(state) is bytes:
            return ormsgpack.Ext(number, state)
        return ormsgpack.Ext(number, ormsgpack.packb(self.plain(state, depth + 1)))

    def _scalar(self, value: Any) -> Any:
        if type(value) is int and not -(1 << 63) <= value < 1 << 64:
            size = value.bit_length() // 8 + 1
            return ormsgpack.Ext(_BIG_INT, value.to_bytes(size, signed=True))
        if type(value) is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return ormsgpack.Ext(_SURROGATES, value.encode("utf-8", "surrogatepass"))
        return value


def _pairs(value: Any) -> list[Any]:
    return [part for pair in value.items() for part in pair]


def _moment(value: datetime | time) -> bytes:
    """`2026-07-01T12:00:00|0|Europe/Berlin`: what a clock on the wall says, its fold, its zone."""
    told = value.replace(tzinfo=None, fold=0).isoformat()
    return f"{told}|{value.fold}|{_zone_text(value.tzinfo)}".encode()


def _zone_text(zone: tzinfo | None) -> str:
    if zone is None:
        return ""
    if type(zone) is timezone:
        return "+" + _offset_text(zone)
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    raise UnpackableValueError(name_of(type(zone)), "a time zone that cannot be named")


def _offset_text(zone: timezone) -> str:
    return f"{_timedelta_text(zone.utcoffset(None))},{zone.tzname(None)}"


def _timedelta_text(value: timedelta) -> str:
    return f"{value.days},{value.seconds},{value.microseconds}"


_WRITERS: Final[dict[type, Callable[[Any], tuple[int, Any]]]] = {
    tuple: lambda value: (_TUPLE, list(value)),
    set: lambda value: (_SET, list(value)),
    frozenset: lambda value: (_FROZENSET, list(value)),
    dict: lambda value: (_DICT, _pairs(value)),
    OrderedDict: lambda value: (_ORDERED, _pairs(value)),
    deque: lambda value: (_DEQUE, [value.maxlen, list(value)]),
    bytearray: lambda value: (_BYTEARRAY, bytes(value)),
    complex: lambda value: (_COMPLEX, struct.pack(">dd", value.real, value.imag)),
    Decimal: lambda value: (_DECIMAL, str(value).encode()),
    Fraction: lambda value: (_FRACTION, f"{value.numerator:x}/{value.denominator:x}".encode()),
    UUID: lambda value: (_UUID, value.bytes),
    datetime: lambda value: (_DATETIME, _moment(value)),
    time: lambda value: (_TIME, _moment(value)),
    date: lambda value: (_DATE, value.isoformat().encode()),
    timedelta: lambda value: (_TIMEDELTA, _timedelta_text(value).encode()),
    timezone: lambda value: (_TIMEZONE, _offset_text(value).encode()),
    ZoneInfo: lambda value: (_ZONE, _zone_text(value).encode()),
}


class _Deferred:
    """An extension that holds values: read once MessagePack's own reader has returned.

    That reader recurses: called from within itself, again and again, it would run out of stack.
    """

    __slots__ = ("number", "state")

    def __init__(self, number: int, state: bytes) -> None:
        self.number = number
        self.state = state


_HOLDING: Final = frozenset({list, dict, _Deferred})


class _Reading:
    """One value on its way back; raises for whatever is wrong."""

    __slots__ = ("_classes", "_has_deferred")

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._has_deferred = False

    def read(self, packed: bytes, depth: int = 0) -> Any:
        self._has_deferred = False
        value = ormsgpack.unpackb(packed, ext_hook=self._extension)
        return self._settled(value, depth) if self._has_deferred else value

    def _extension(self, number: int, state: bytes) -> Any:
        leaf = _LEAVES.get(number)
        if leaf is not None:
            return leaf(state)
        self._has_deferred = True
        return _Deferred(number, state)

    def _settled(self, value: Any, depth: int) -> Any:
        """`value` with nothing deferred in it."""
        if depth > DEPTH_MAX:
            raise ValueError("nested too deep")
        kind = type(value)
        if kind is _Deferred:
            state = self.read(value.state, depth + 1)
            if type(state) is not list:
                raise TypeError("no state")
            if value.number == _OBJECT:
                name, taken = state
                return self._classes.named(name).make(taken)
            return _HOLDERS[value.number](state)
        if kind is list:
            for at, inner in enumerate(value):
                if type(inner) in _HOLDING:
                    value[at] = self._settled(inner, depth + 1)
        elif kind is dict:
            for name, inner in value.items():
                if type(inner) in _HOLDING:
                    value[name] = self._settled(inner, depth + 1)
        return value


def _dict_of(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _datetime_of(state: bytes) -> datetime:
    told, fold, zone = state.decode().split("|", 2)
    return datetime.fromisoformat(told).replace(fold=int(fold), tzinfo=_zone_of(zone))


def _time_of(state: bytes) -> time:
    told, fold, zone = state.decode().split("|", 2)
    return time.fromisoformat(told).replace(fold=int(fold), tzinfo=_zone_of(zone))


def _zone_of(text: str) -> tzinfo | None:
    if not text:
        return None
    return _timezone_of(text[1:]) if text.startswith("+") else ZoneInfo(text)


def _timezone_of(text: str) -> timezone:
    days, seconds, microseconds, name = text.split(",", 3)
    offset = timedelta(int(days), int(seconds), int(microseconds))
    plain = timezone(offset)
    if plain.tzname(None) == name:
        return UTC if plain == UTC else plain
    return timezone(offset, name)


def _timedelta_of(state: bytes) -> timedelta:
    days, seconds, microseconds = state.decode().split(",")
    return timedelta(int(days), int(seconds), int(microseconds))


def _fraction_of(state: bytes) -> Fraction:
    numerator, denominator = state.decode().split("/")
    return Fraction(int(numerator, 16), int(denominator, 16))


_LEAVES: Final[dict[int, Callable[[bytes], Any]]] = {
    _BIG_INT: lambda state: int.from_bytes(state, signed=True),
    _SURROGATES: lambda state: state.decode("utf-8", "surrogatepass"),
    _BYTEARRAY: bytearray,
    _COMPLEX: lambda state: complex(*struct.unpack(">dd", state)),
    _DECIMAL: lambda state: Decimal(state.decode("ascii")),
    _FRACTION: _fraction_of,
    _UUID: lambda state: UUID(bytes=state),
    _DATETIME: _datetime_of,
    _TIME: _time_of,
    _DATE: lambda state: date.fromisoformat(state.decode("ascii")),
    _TIMEDELTA: _timedelta_of,
    _TIMEZONE: lambda state: _timezone_of(state.decode()),
    _ZONE: lambda state: ZoneInfo(state.decode()),
}
_HOLDERS: Final[dict[int, Callable[[list[Any]], Any]]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _DICT: _dict_of,
    _ORDERED: lambda state: OrderedDict(_dict_of(state)),
    _DEQUE: lambda state: deque(state[1], state[0]),
}

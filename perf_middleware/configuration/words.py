"""Settings in words: what a field allows, how a value looks in an error, the docs or the doctor."""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

VALUE_CHARS_MAX = 60  # enough to recognise a value by; the rest of a long one is cut
NAME_CHARS_MAX = 120

_TYPES: Mapping[type, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    SecretStr: ("text", "texts"),
    SecretBytes: ("text", "texts"),
    dict: ("a table", "tables"),
    object: ("any value", "values"),
}

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = VALUE_CHARS_MAX


def shown_value(value: Any) -> str:
    """`value` as Python writes it, cut.  Never for a secret."""
    return _short.repr(value)


def shown_name(name: object) -> str:
    """A name as the user wrote it, on one line whatever is in it."""
    text = name if isinstance(name, str) else shown_value(name)
    if len(text) > NAME_CHARS_MAX:
        text = text[: NAME_CHARS_MAX - 1] + "…"
    return _printable(text)


def value_in_words(value: Any) -> str:
    """A value as the environment would write it: `true`, `none`, `0.1,0.5`."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case "":
            return '""'
        case Mapping():
            parts = (f"{name}={value_in_words(item)}" for name, item in value.items())
            return ", ".join(parts) or "{}"
        case list() | tuple():
            return ",".join(value_in_words(item) for item in value) or "[]"
        case _:
            return _printable(str(value))


def _printable(text: str) -> str:
    """`text` on one line, encodable: line feeds, escapes and undecodable bytes are spelled out."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def allowed_in_words(info: FieldInfo) -> str:
    """What the field accepts, to follow "must be": type, range, length, choices."""
    return _allowed(info.annotation, info.metadata)


def _allowed(annotation: Any, metadata: Iterable[Any], *, plural: bool = False) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *extra = arguments
        return _allowed(inner, [*_flat(extra), *metadata], plural=plural)
    if origin in (Union, UnionType):
        members = [_allowed(arg, metadata) for arg in arguments if arg is not NoneType]
        none = ["none"] if NoneType in arguments else []
        return " or ".join([*members, *none])
    if origin is Literal:
        return _choice(arguments)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _choice([choice.value for choice in annotation])
    if origin in (tuple, list, set, frozenset):
        items = _allowed(arguments[0], (), plural=True) if arguments else "values"
        if origin is tuple and Ellipsis not in arguments:
            items = f"{len(arguments)} {items}"
        return f"a list of {items}{_length(metadata, 'items', before=', ')}"
    if origin is dict:
        return _plain(dict, plural=plural) + _length(metadata, "entries", before=" of ")
    return _plain(origin or annotation, plural=plural) + _range(metadata)


def _choice(values: Sequence[Any]) -> str:
    words = ", ".join(value_in_words(value) for value in values)
    return f"one of {words}" if len(values) > 1 else words


def _plain(kind: Any, *, plural: bool) -> str:
    words = _TYPES.get(object if kind is Any else kind)
    if words is None and isinstance(kind, type):
        if issubclass(kind, PurePath):
            words = ("a path", "paths")
        elif issubclass(kind, BaseModel):
            words = _TYPES[dict]
        elif issubclass(kind, Secret):
            words = _TYPES[str]
    if words is None:
        name = getattr(kind, "__name__", str(kind))
        words = (f"a {name}", f"{name} values")
    return words[plural]


def _range(metadata: Iterable[Any]) -> str:
    limits = _limits(metadata)
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']} to {limits['le']}"
    words = {"ge": " of at least ", "gt": " above ", "le": " of at most ", "lt": " below "}
    text = " and".join(words[name] + str(limits[name]) for name in words if name in limits)
    text += _length(metadata, "characters", before=" of ")
    if "pattern" in limits:
        text += f" matching {getattr(limits['pattern'], 'pattern', limits['pattern'])}"
    return text


def _length(metadata: Iterable[Any], unit: str, *, before: str) -> str:
    limits = _limits(metadata)
    shortest, longest = limits.get("min_length"), limits.get("max_length")
    if shortest is not None and longest is not None:
        return f"{before}{shortest} to {longest} {unit}"
    if shortest is not None:
        return f"{before}at least {shortest} {unit}"
    return f"{before}at most {longest} {unit}" if longest is not None else ""


def _limits(metadata: Iterable[Any]) -> dict[str, Any]:
    """The constraints by name: pydantic keeps each as an object with one such attribute."""
    names = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
    found = {}
    for constraint in metadata:
        for name in names:
            value = getattr(constraint, name, None)
            if value is not None:
                found[name] = value
    return found


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for constraint in metadata:
        if isinstance(constraint, FieldInfo):
            yield from constraint.metadata
        else:
            yield constraint

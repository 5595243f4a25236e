"""The arguments of an entry: JSON that gives back what was given, or an error that says where not.

No pickle: a file that somebody else could write to must not be able to run code.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import orjson

from perf_middleware.task_errors import TaskArgumentsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from inspect import Signature

ARGUMENTS_BYTES_MAX: Final = 1 << 20
# What orjson would turn into text of its own choice is refused: it would not come back.
STRICT: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
SCALARS: Final = frozenset({str, int, float, bool, NoneType})


def packed(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """`args` and `kwargs` as JSON.

    Raises TaskArgumentsError for what does not come back as it was: a tuple, a date, NaN, ...
    """
    call = [list(args), dict(kwargs)]
    try:
        text = orjson.dumps(call, option=STRICT)
    except orjson.JSONEncodeError as exc:
        raise TaskArgumentsError(task, f"{_culprit(args, kwargs)} is not JSON: {exc}") from exc
    if len(text) > ARGUMENTS_BYTES_MAX:
        raise TaskArgumentsError(
            task, f"they take {len(text)} bytes, and {ARGUMENTS_BYTES_MAX} are the most"
        )
    if not _comes_back(call, text):
        raise TaskArgumentsError(
            task, f"{_culprit(args, kwargs)} would not come back from JSON as it is"
        )
    return text


def unpacked(task: str, arguments: bytes) -> tuple[list[Any], dict[str, Any]]:
    """What `packed` was given.  Raises TaskArgumentsError for what it never made."""
    try:
        match orjson.loads(arguments):
            case [list(args), dict(kwargs)]:
                return args, kwargs
    except orjson.JSONDecodeError as exc:
        raise TaskArgumentsError(task, f"the journal has no JSON: {exc}") from exc
    raise TaskArgumentsError(task, "the journal has other JSON than arguments")


def check_fit(
    task: str, signature: Signature, args: list[Any] | tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Raises TaskArgumentsError where the function could not be called with these."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise TaskArgumentsError(task, str(exc)) from exc


def _comes_back(value: Any, text: bytes) -> bool:
    """Whether `text`, which orjson made of `value`, gives it back."""
    return bool(orjson.loads(text) == value) and _is_plain(value)


def _is_plain(value: Any) -> bool:
    """Whether there is nothing in `value` but JSON's own types: an enum equals its text, or number,
    and would come back as that.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind in SCALARS
    return SCALARS.issuperset(map(type, value)) or all(map(_is_plain, value))


def _culprit(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The first argument that does not come back, by its place and type."""
    named = [(f"argument {number}", value) for number, value in enumerate(args, start=1)]
    named += [(f"argument {name}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            comes_back = _comes_back(value, orjson.dumps(value, option=STRICT))
        except orjson.JSONEncodeError:
            comes_back = False
        if not comes_back:
            return f"{name} ({type(value).__name__})"
    return "an argument"

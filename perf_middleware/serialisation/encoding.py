"""Values as JSON text: by orjson, and what it does not know as pydantic writes it.

    orjson     dict, list, str, int, float, bool, None, datetime, UUID, enum, dataclass, numpy
    pydantic   models, Decimal, set, deque, named tuple, bytes, path, timedelta, IP address ...

So a value looks the same whether it stands in a model or beside one.  NaN and the infinities, which
JSON does not have, are null (RFC 8259 §6).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

# Strings as the only keys take 0.63 of the time that OPT_NON_STR_KEYS takes (1,000 small objects).
_STR_KEYS: Final = orjson.OPT_SERIALIZE_NUMPY
_ANY_KEYS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_STEPS_MAX: Final = 16  # as far as an error leads to a place; a circle has no end
_STEP_CHARS_MAX: Final = 80  # of a key, where an error names it


def encode(content: Any) -> bytes:
    """`content` as JSON in UTF-8; keys that are no strings become the text of their value.

    Raises TypeError, which names the place: an unknown type, an integer beyond 64 bits, a lone
    surrogate, a key that is no scalar, more than 254 levels.
    """
    try:
        return orjson.dumps(content, _by_pydantic, _STR_KEYS)
    except TypeError:
        pass
    # Tried anew from the start: nothing that can be read only once has got past `_by_pydantic`.
    try:
        return orjson.dumps(content, _by_pydantic, _ANY_KEYS)
    except TypeError as error:
        reason = str(error.__cause__ or error)
    place, culprit = _first_refused(content)
    raise TypeError(f"{place} ({type(culprit).__name__}) cannot be JSON: {reason}")


def _by_pydantic(value: Any) -> orjson.Fragment:
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:  # a model; as FastAPI does: a field goes by its alias
        return orjson.Fragment(serializer.to_json(value, by_alias=True))
    if isinstance(value, Iterator):
        raise TypeError("what can be read only once: give StreamingJSONResponse that, or a list")
    tolist = getattr(type(value), "tolist", None)
    if tolist is not None:  # a numpy array whose memory or element type orjson cannot read
        value = tolist(value)
    return orjson.Fragment(to_json(value, by_alias=True, inf_nan_mode="null"))


def _first_refused(content: Any) -> tuple[str, Any]:
    """The innermost value that cannot be encoded, and how it is reached from `content`."""
    place = "content"
    for _ in range(_STEPS_MAX):
        for step, child in _children(content):
            if not _is_encodable(child):
                place += step
                content = child
                break
        else:
            break
    return place, content


def _children(content: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(content, dict):
        return ((f"[{repr(key)[:_STEP_CHARS_MAX]}]", value) for key, value in content.items())
    if isinstance(content, list | tuple):
        return ((f"[{index}]", value) for index, value in enumerate(content))
    return ()


def _is_encodable(value: Any) -> bool:
    try:
        orjson.dumps(value, _by_pydantic, _ANY_KEYS)
    except TypeError:
        return False
    return True

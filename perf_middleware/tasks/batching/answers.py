"""What a bulk call has given, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perf_middleware.tasks.batching.errors import BatchResultError, MissingResultError
from perf_middleware.tasks.batching.options import MISSING
from perf_middleware.tasks.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Hashable


def by_key(keys: Sequence[Hashable], results: Any, *, name: str, default: Any) -> list[Any]:
    """For each key its value, or Failed: in the order of `keys`.

    A mapping is read by key, a list or tuple by position.  An Exception among the values fails its
    key, as Failed does.  Raises BatchResultError for anything else, or a list of another length.
    """
    if isinstance(results, Mapping):
        return [
            _value(results[key])
            if key in results
            else Failed(MissingResultError(name, repr(key)))
            if default is MISSING
            else default
            for key in keys
        ]
    if not isinstance(results, Sequence) or isinstance(results, str | bytes | bytearray):
        raise BatchResultError(
            name, f"it gave {_kind(results)}, not a list in the order of the keys, or a dict"
        )
    if len(results) != len(keys):
        raise BatchResultError(
            name,
            f"it gave a list of {len(results)} for {len(keys)} keys: one for each key in their "
            "order, or a dict where some may be missing",
        )
    return [_value(value) for value in results]


def _value(value: Any) -> Any:
    return Failed(value) if isinstance(value, Exception) else value


def _kind(results: Any) -> str:
    return "None" if results is None else f"a {type(results).__name__}"

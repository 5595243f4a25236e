"""What a bulk call has given, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

from perf_middleware.tasks.batching.errors import (
    BatchCancelledError,
    BatchResultError,
    MissingResultError,
)
from perf_middleware.tasks.batching.options import MISSING
from perf_middleware.tasks.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Hashable


def by_key(
    keys: Sequence[Hashable], results: Any, *, given: Sequence[Hashable], name: str, default: Any
) -> list[Any]:
    """For each key its value, or Failed: in the order of `keys`.

    A mapping is read by key, a list or tuple by position: not where the call has changed the list
    that it was `given`, as nobody knows whose order that of its results is then.  An exception
    among the values fails its key, as Failed does; a cancellation there is of something that the
    call has asked, so it is told as BatchCancelledError.  Raises BatchResultError for anything
    else, or a list of another length.
    """
    if isinstance(results, Mapping):
        return [
            _value(results[key], name)
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
    if len(given) != len(keys) or not all(map(is_, given, keys)):
        raise BatchResultError(
            name,
            "it changed the list of keys that it was given, and gave a list: copy the keys before "
            "you sort or empty them, or give a dict",
        )
    values = [_value(value, name) for value in results]
    if len(values) != len(keys):
        raise BatchResultError(
            name,
            f"it gave a list of {len(values)} for {len(keys)} keys: one for each key in their "
            "order, or a dict where some may be missing",
        )
    return values


def _value(value: Any, name: str) -> Any:
    if not isinstance(value, BaseException | Failed):
        return value
    error = value.error if isinstance(value, Failed) else value
    if isinstance(error, Exception):
        return Failed(error)
    # Raised as it is, it would cancel those who asked, whom nobody has cancelled.
    cancelled = BatchCancelledError(name)
    cancelled.__cause__ = error
    return Failed(cancelled)


def _kind(results: Any) -> str:
    return "None" if results is None else f"a {type(results).__name__}"

"""What a bulk function has given for a portion of items, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perf_middleware.tasks.failures import Failed


def placed(results: Any, *, count: int, first_index: int) -> list[Any]:
    """For each item its result; an Exception or a Failed among them as Failed with its index.

    Raises TypeError for what is no list of one result for each item, in their order.
    """
    if not isinstance(results, Sequence) or isinstance(results, str | bytes | bytearray):
        raise TypeError(f"a list of results is expected, one for each item, not {results!r:.100}")
    if len(results) != count:
        raise TypeError(f"{count} items had {len(results)} results: one for each item is expected")
    return [_value(result, index) for index, result in enumerate(results, start=first_index)]


def all_failed(error: BaseException, *, count: int, first_index: int) -> list[Any]:
    """The same failure for each item of a portion."""
    return [Failed(error, index) for index in range(first_index, first_index + count)]


def _value(result: Any, index: int) -> Any:
    if isinstance(result, Failed):
        return Failed(result.error, index)
    return Failed(result, index) if isinstance(result, Exception) else result

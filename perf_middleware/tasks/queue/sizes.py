"""About how many bytes a job keeps: itself, and what it was given.

A guess that bounds memory, not a measurement: containers are looked into one level deep, and the
first hundred of their items; what objects hold below that is not seen.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

JOB_BYTES: Final = 600  # measured: 530 with its id, its context and its places in tables and lines
ITEMS_MAX: Final = 100
CONTAINERS: Final = (list, tuple, set, frozenset)


def approximate_bytes(value: object) -> int:
    """About how many bytes `value` takes; 0 for one that cannot be asked."""
    try:
        return _bytes_of(value)
    except Exception:  # noqa: BLE001 - a class; or what the app's own type says of itself fails
        return 0


def _bytes_of(value: object) -> int:
    size = value.__sizeof__()
    if isinstance(value, CONTAINERS):
        size += _of_some(value, len(value))
    elif isinstance(value, dict):
        size += _of_some(value.values(), len(value))
    elif type(value).__sizeof__ is object.__sizeof__ and hasattr(value, "nbytes"):
        size += int(value.nbytes)
    return size


def call_bytes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """About how many bytes a job with these arguments takes."""
    size = JOB_BYTES
    for value in args:
        size += approximate_bytes(value)
    for value in kwargs.values():
        size += approximate_bytes(value)
    return size


def _of_some(items: Iterable[object], count: int) -> int:
    looked_at = min(count, ITEMS_MAX)
    if not looked_at:
        return 0
    total = 0
    for item in islice(items, looked_at):
        try:
            total += item.__sizeof__()
        except Exception:  # noqa: BLE001, S112 - as above
            continue
    return total * count // looked_at

"""JSON of an environment variable: what it says, and which names it says twice.

JSON leaves open which of two values of one name counts (RFC 8259 §4), Python's reader takes the
last: neither may win silently.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, TypeAlias

Place: TypeAlias = "tuple[int | str, ...]"


def read_json(text: str) -> tuple[Any, list[Place]]:
    """What `text` says, and the place of each name that one table of it gives more than once.

    A place is the way to it from outside: names, and the numbers of items from 0.
    Raises ValueError for what is no JSON, RecursionError for what is nested too deep.
    """
    # The tables are kept beside their names: the id of one that is let go may be another's.
    repeated: list[tuple[dict[str, Any], list[str]]] = []

    def table_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.append((table, [name for name, count in counts.items() if count > 1]))
        return table

    value = json.loads(text, object_pairs_hook=table_of)
    return value, _places(value, {id(table): names for table, names in repeated})


def _places(value: Any, repeated: dict[int, list[str]]) -> list[Place]:
    """Where in `value` the tables of these ids are, in the order of the text."""
    found: list[Place] = []
    if not repeated:
        return found
    left: list[tuple[Place, Any]] = [((), value)]
    while left:  # no recursion: JSON may be nested deeper than calls may be
        place, inner = left.pop()
        if isinstance(inner, dict):
            found += [(*place, name) for name in repeated.get(id(inner), ())]
            below = list(inner.items())
        elif isinstance(inner, list):
            below = list(enumerate(inner))
        else:
            continue
        left += [((*place, at), each) for at, each in reversed(below)]
    return found

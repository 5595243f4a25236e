"""Patterns over keys: `*` stands for any text, every other character for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a key matches `pattern`, in time linear in the key for each `*`."""
    first, *rest = pattern.split("*")
    if not rest:
        return lambda key: key == pattern
    *middle, last = rest
    middle = [part for part in middle if part]
    if not middle and not last:
        return lambda key: key.startswith(first)
    shortest = len(first) + len(last)

    def matches(key: str) -> bool:
        if len(key) < shortest or not key.startswith(first) or not key.endswith(last):
            return False
        at, end = len(first), len(key) - len(last)
        for part in middle:  # the first place that fits leaves the most for the rest
            at = key.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches

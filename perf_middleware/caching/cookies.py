"""Cookies that do not count: those of statistics scripts, which no app reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class IgnoredCookies:
    """Cookies by name; `_ga*` is every name that begins with `_ga`.

    Raises ValueError for a name that is empty, that would ignore every cookie, or that has a star
    elsewhere.
    """

    def __init__(self, names: Iterable[str]) -> None:
        exact, prefixes = set(), []
        for name in names:
            begin = name.removesuffix("*")
            if not begin or not begin.isascii() or set(begin) & set("*=;, \t"):
                raise ValueError(f"{name!r} is no name of a cookie, nor the beginning of one and *")
            if begin == name:
                exact.add(name.encode())
            else:
                prefixes.append(begin.encode())
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)

    def are_all_of(self, lines: Iterable[bytes]) -> bool:
        """Whether there is no other cookie in these lines of `Cookie` (RFC 6265 §4.2.1)."""
        return all(self._has(pair) for line in lines for pair in line.split(b";"))

    def leave_of(self, lines: Sequence[bytes]) -> list[bytes]:
        """The lines with what is left of each; those of which nothing is left are left out."""
        left = [
            b";".join(pair for pair in line.split(b";") if not self._has(pair)) for line in lines
        ]
        return [line for line in left if line]

    def _has(self, pair: bytes) -> bool:
        name, equals, _ = pair.strip(b" \t").partition(b"=")
        # A lone value is what browsers make of a cookie without a name: it counts.
        if not equals:
            return not name
        return name in self._exact or name.startswith(self._prefixes)

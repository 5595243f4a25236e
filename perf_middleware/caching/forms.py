"""The coded forms of one stored body: each coding made once, kept as long as it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Measured as those in stored.py.
FORMS_BYTES: Final = 950  # the object and its maps
FORM_BYTES: Final = 60  # a bytes object, beside its content


class CodedForms:
    """Forms of `body`; `grow` is asked for the room of each, and says whether there is any.

    Source: RFC 9110 §8.4 (content codings), §8.8.3.3 (each has a tag of its own).
    """

    __slots__ = ("_asked", "_claimed", "_forms", "_grow", "body", "size_bytes")

    def __init__(self, body: bytes, *, grow: Callable[[CodedForms, int], bool]) -> None:
        self.body = body
        self.size_bytes = 0  # of what is stored with it
        self._grow = grow
        self._forms: dict[str, bytes] = {}
        self._asked: dict[str, int] = {}
        self._claimed: set[str] = set()

    def get(self, coding: str) -> bytes | None:
        return self._forms.get(coding)

    def ask(self, coding: str) -> int:
        asked = self._asked[coding] = self._asked.get(coding, 0) + 1
        return asked

    def claim(self, coding: str) -> bool:
        if coding in self._claimed:
            return False
        self._claimed.add(coding)
        return True

    def remember(self, coding: str, coded: bytes) -> None:
        known = self._forms.get(coding, self.body)
        if len(coded) >= len(known):
            return
        more_bytes = len(coded) - len(known) if coding in self._forms else len(coded) + FORM_BYTES
        if self._grow(self, more_bytes):
            self._forms[coding] = coded

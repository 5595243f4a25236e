"""The coded forms of one stored body: made behind its hits, kept as long as it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.coded_forms import CodedHead

# Measured as those in stored.py.
FORMS_BYTES: Final = 1_700  # the object, its maps and its heads
FORM_BYTES: Final = 60  # a bytes object, beside its content


class CodedForms:
    """Forms of `body`; `grow` is asked for their room, and says whether there is any.

    Room is asked for when they are of use: a body of a kind that is never encoded has none.
    Source: RFC 9110 §8.4 (content codings).
    """

    __slots__ = ("_asked", "_claimed", "_forms", "_grow", "body", "coded_head", "size_bytes")

    def __init__(self, body: bytes, *, grow: Callable[[CodedForms, int], bool]) -> None:
        self.body = body
        self.coded_head: CodedHead | None = None
        self.size_bytes = 0  # of what is stored with it
        self._grow = grow
        self._forms: dict[str, bytes] | None = None
        self._asked: dict[str, int]
        self._claimed: set[tuple[str, str]]

    def get(self, coding: str) -> bytes | None:
        return None if self._forms is None else self._forms.get(coding)

    def ask(self, coding: str) -> int:
        if not self._has_room():
            return 0
        asked = self._asked[coding] = self._asked.get(coding, 0) + 1
        return asked

    def claim(self, coding: str, effort: str) -> None:
        if self._has_room():
            self._claimed.add((coding, effort))
            self.coded_head = None

    def is_claimed(self, coding: str, effort: str) -> bool:
        return self._forms is not None and (coding, effort) in self._claimed

    def remember(self, coding: str, coded: bytes) -> None:
        if not self._has_room() or self._forms is None:
            return
        known = self._forms.get(coding)
        if len(coded) >= len(self.body if known is None else known):
            return
        more_bytes = len(coded) + FORM_BYTES if known is None else len(coded) - len(known)
        if self._grow(self, more_bytes):
            self._forms[coding] = coded
            self.coded_head = None

    def _has_room(self) -> bool:
        if self._forms is None and self._grow(self, FORMS_BYTES):
            self._forms, self._asked, self._claimed = {}, {}, set()
        return self._forms is not None

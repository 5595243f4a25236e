"""The lines of the app that are being run, also from within SQLAlchemy's greenlet.

    greenlet   pool, engine, session: SQLAlchemy's own frames, and no more
    parent     greenlet_spawn, AsyncSession.execute, the app's coroutine, …, the event loop

A greenlet's frames end where it was begun; those of who began it hang on its parent.
What is kept of a line is its code and the instruction in it; numbers are for those who read them.
Source: greenlet's documentation, `gr_frame` and "Greenlets and the parent".
"""

from __future__ import annotations

import sys
from itertools import islice
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.code_roots import code_roots
from perf_middleware.database.drivers.frames import Shortcut
from perf_middleware.database.holding.loans import LINES_TOLD, Line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from perf_middleware.code_roots import CodeRoots

Spot: TypeAlias = tuple[CodeType, int]

FRAMES_MAX: Final = 120
FRAMES_BETWEEN_MAX: Final = 4  # below the app's code is a server's, which is not walked to its end
FILES_MAX: Final = 10_000  # whose code they are is remembered so long


class AppLines:
    """Finds the app's own lines; whose code a file is, it asks once for each file."""

    def __init__(self, roots: CodeRoots | None = None) -> None:
        self._roots = roots
        self._is_own: dict[str, bool] = {}
        self._getcurrent: Any = None
        self._shortcut = Shortcut()

    def now(self) -> tuple[Spot, ...]:
        """The innermost lines of the app, a few; none where only libraries are on the way."""
        if self._getcurrent is None:
            from greenlet import getcurrent  # type: ignore[import-untyped]

            self._getcurrent = getcurrent
        begin = self._shortcut.begin()
        if begin is not None:
            found, _ = self._search(begin.f_back)  # itself is the library's
            if found:
                return tuple(found)
        found, within = self._search(sys._getframe(1))  # noqa: SLF001 - the one way without a copy
        if found and within is not None:
            self._shortcut.learn(within)
        return tuple(found)

    def _search(self, begin: FrameType | None) -> tuple[list[Spot], FrameType | None]:
        """The lines, and the outermost frame within them, of those in this greenlet."""
        is_own = self._is_own
        found: list[Spot] = []
        frame = begin
        within: FrameType | None = None
        greenlet: Any = None
        left = FRAMES_MAX
        while left:
            if frame is None:
                greenlet = (self._getcurrent() if greenlet is None else greenlet).parent
                if greenlet is None:
                    break
                frame = greenlet.gr_frame
                continue
            code = frame.f_code
            own = is_own.get(code.co_filename)
            if own is None:
                own = self._ask(code.co_filename)
            if own:
                found.append((code, frame.f_lasti))
                if len(found) == LINES_TOLD:
                    break
                left = FRAMES_BETWEEN_MAX
            else:
                left -= 1
                if greenlet is None and not found:
                    within = frame
            frame = frame.f_back
        return found, within

    def lines_of(self, spots: Iterable[Any]) -> tuple[Line, ...]:
        """The same for people."""
        return tuple(
            Line(code.co_filename, _number_of(code, instruction), code.co_qualname)
            for code, instruction in spots
        )

    def _ask(self, file: str) -> bool:
        if self._roots is None:
            self._roots = code_roots()
        if len(self._is_own) >= FILES_MAX:
            self._is_own.clear()
        own = self._is_own[file] = self._roots.role_of(file) == "own"
        return own


def _number_of(code: CodeType, instruction: int) -> int:
    position = next(islice(code.co_positions(), max(instruction, 0) // 2, None), None)
    return (position and position[0]) or code.co_firstlineno

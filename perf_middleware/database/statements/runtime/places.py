"""Which line of the app's a statement comes from.

    our hook <- sqlalchemy <- ... <- app/views.py:12      the innermost line that is the app's own

An async session runs SQLAlchemy in a greenlet, whose frames end there: the app's are the parent's.
What a file is, is asked once.  Most of the cost are the frames, which Python makes when asked.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from sys import _getframe  # the one way without a copy
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.code_roots import code_roots
from perf_middleware.database.drivers.frames import Shortcut
from perf_middleware.database.statements.n_plus_one import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

Spot: TypeAlias = tuple[CodeType, int]
"""A line as the hot path knows it: the code and the instruction in it.

Not the line's number: to find it, Python reads the table of the function from its beginning.
"""

DEPTH_MAX: Final = 100  # frames; a lazy load is some twenty below the app's line
FILES_MAX: Final = 10_000  # remembered; code that is generated anew has names without end
PLACES_MAX: Final = 1_000  # remembered
SOURCE_LINE_MAX: Final = 100_000
SOURCE_CHARS_MAX: Final = 160
SKIPPED, OWN, OTHER = range(3)
# They run the app's statements for it: never the place, even where no line is the app's own.
CARRIERS: Final = ("/sqlalchemy/", "/sqlmodel/", "/greenlet/", "/aiosqlite/", "/asyncpg/")


class Places:
    """Finds the app's own line; `own` are directories that are the app's."""

    def __init__(self, own: Sequence[str] = ()) -> None:
        self._own = tuple(own)
        self._roots = code_roots(self._own)
        self._kinds: dict[str, int] = {}
        self._places: dict[tuple[int, int], tuple[CodeType, Place]] = {}
        self._current_greenlet: Callable[[], Any] | None = None
        self._shortcut = Shortcut()

    def follow_greenlets(self) -> None:
        """From now on, if the library is there: SQLAlchemy needs it for async engines alone."""
        try:
            from greenlet import getcurrent  # type: ignore[import-untyped]
        except ImportError:
            return
        self._current_greenlet = getcurrent

    def spot_now(self) -> Spot | None:
        """The innermost own line, the innermost that is no carrier's where none is own, or None."""
        for depth, code in self._shortcut.ways:
            try:
                begin = _getframe(depth)
            except ValueError:  # not so deep
                continue
            if begin.f_code is code:
                above = begin.f_back  # mostly it is this one
                if above is not None:
                    own = above.f_code
                    if self._kinds.get(own.co_filename) == OWN:
                        return own, above.f_lasti
                spot, library = self._search(begin)
                if library is not None:
                    return spot
                break
        spot, library = self._search(_getframe(1))
        if library is not None and spot is not None and library.f_code is not spot[0]:
            self._shortcut.learn(library)
        return spot

    def _search(self, frame: FrameType | None) -> tuple[Spot | None, FrameType | None]:
        """The spot; with an own one the outermost frame within, of those in this greenlet."""
        kinds = self._kinds
        within = frame
        greenlet: Any = None
        fallback: Spot | None = None
        for _ in range(DEPTH_MAX):
            if frame is None:
                if greenlet is None and self._current_greenlet is not None:
                    greenlet = self._current_greenlet()
                greenlet = greenlet and greenlet.parent
                frame = greenlet and greenlet.gr_frame
                if frame is None:
                    break
            code = frame.f_code
            kind = kinds.get(code.co_filename)
            if kind is None:
                kind = self._learn(code.co_filename)
            if kind == OWN:
                return (code, frame.f_lasti), within
            if kind == OTHER and fallback is None:
                fallback = code, frame.f_lasti
            if greenlet is None:
                within = frame
            frame = frame.f_back
        return fallback, None

    def place_of(self, spot: Spot) -> Place:
        """The same for people; remembered, as a function's table is read from its beginning."""
        code, instruction = spot
        key = (id(code), instruction)
        known = self._places.get(key)
        if known is not None:
            return known[1]
        position = next(islice(code.co_positions(), max(instruction, 0) // 2, None), None)
        line = (position and position[0]) or code.co_firstlineno
        is_own = self._kinds.get(code.co_filename) == OWN
        place = Place(code.co_filename, line, code.co_qualname, is_own)
        if len(self._places) >= PLACES_MAX:
            self._places.clear()
        self._places[key] = (code, place)  # the code too: its id is another's as soon as it is gone
        return place

    def _learn(self, file: str) -> int:
        role = self._roots.role_of(file)
        if role == "own":
            kind = OWN
        elif role in ("library", "framework"):
            kind = SKIPPED if any(each in file.replace("\\", "/") for each in CARRIERS) else OTHER
        else:
            kind = SKIPPED
        if len(self._kinds) >= FILES_MAX:
            self._kinds.clear()
        self._kinds[file] = kind
        return kind


def source_of(place: Place) -> str:
    """The text of the line, stripped and cut; empty where its file cannot be read.

    Reads a file: once for a finding.
    """
    if not 0 < place.line <= SOURCE_LINE_MAX or place.file.startswith("<"):
        return ""
    try:
        with Path(place.file).open(encoding="utf-8", errors="replace") as file:
            text = next(islice(file, place.line - 1, None), "")
    except (OSError, ValueError):
        return ""
    return text.strip()[:SOURCE_CHARS_MAX]

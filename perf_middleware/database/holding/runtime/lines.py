"""The lines of the app that are being run, also from within SQLAlchemy's greenlet.

    greenlet   pool, engine, session: SQLAlchemy's own frames, and no more
    parent     greenlet_spawn, AsyncSession.execute, the app's coroutine, …, the event loop

A greenlet's frames end where it was begun; those of who began it hang on its parent.
What is kept of a line is its code and the instruction in it; numbers are for those who read them.
The search ends where a framework, a server or the event loop has called the app: above is no line
that took the connection.
Source: greenlet's documentation, `gr_frame` and "Greenlets and the parent".
"""

from __future__ import annotations

import asyncio.events
from itertools import islice
from sys import _getframe  # the one way without a copy
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.code_roots import code_roots
from perf_middleware.database.drivers.frames import Shortcut
from perf_middleware.database.holding.loans import LINES_TOLD, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType

    from perf_middleware.code_roots import CodeRoots

Spot: TypeAlias = tuple[CodeType, int]

FRAMES_MAX: Final = 120
FRAMES_BETWEEN_MAX: Final = 4  # below the app's code is a server's, which is not walked to its end
DEPTHS_MAX: Final = 50  # for which the way beyond a greenlet is known
FILES_MAX: Final = 10_000  # whose code they are is remembered so long
OWN, PASSED, CALLER = range(3)
EVENT_LOOP: Final = asyncio.events.__file__


class AppLines:
    """Finds the app's own lines; whose code a file is, it asks once for each file."""

    def __init__(self, roots: CodeRoots | None = None) -> None:
        self._roots = roots
        self._kinds: dict[str, int] = {}
        self._getcurrent: Any = None
        self._shortcut = Shortcut()
        self._caller: CodeType | None = None  # the last that ended a search: mostly there is one
        # Beyond the greenlet that runs: so many steps, and the code that is there.  By the depth in
        # it, as both are another's for a connection, for `execute`, for `scalars`.
        self._ways_beyond: dict[int, tuple[range, CodeType]] = {}

    def now(self) -> Sequence[Spot]:
        """The innermost lines of the app, a few; none where only libraries are on the way."""
        for depth, code in self._shortcut.ways:
            try:
                frame = _getframe(depth)
            except ValueError:  # not so deep
                continue
            if frame.f_code is code:
                above, parent = frame.f_back, None  # itself is the library's
                if above is None:
                    parent = self._greenlet()
                    above = None if parent is None else self._beyond(parent, depth)
                if above is not None:
                    # As `_search`, for what is usual: one line of an endpoint.
                    own, caller = above.f_code, above.f_back
                    if self._kinds.get(own.co_filename) == OWN:
                        if caller is not None and caller.f_code is self._caller:
                            return ((own, above.f_lasti),)
                    elif parent is not None:
                        above = None  # another way than the one that was learnt
                if above is None:
                    found = self._search(frame)
                    if found and parent is not None:
                        self._learn_beyond(parent, depth)
                else:
                    found = self._search(above, parent)
                if found:
                    return found
                break
        begin = _getframe(1)
        found = self._search(begin)
        within = self._within(begin) if found else None
        if within is not None:
            self._shortcut.learn(within)
        return found

    def _beyond(self, parent: Any, depth: int) -> FrameType | None:
        """Who called the library that began this greenlet, by the way that was learnt, or None.

        As a Shortcut, where no depth is counted: the frames of `parent` are passed one by one, and
        the last must run the function that it ran before.
        """
        way = self._ways_beyond.get(depth)
        if way is None:
            return None
        steps, code = way
        frame: Any = parent.gr_frame
        try:
            for _ in steps:
                frame = frame.f_back
            above: FrameType | None = frame.f_back if frame.f_code is code else None
        except AttributeError:  # not so many
            return None
        return above

    def _learn_beyond(self, parent: Any, depth: int) -> None:
        frame = parent.gr_frame
        within = self._within(frame)
        if within is None:
            return
        steps = 0
        while frame is not within:
            frame = frame.f_back
            steps += 1
        if len(self._ways_beyond) >= DEPTHS_MAX:
            self._ways_beyond.clear()
        self._ways_beyond[depth] = (range(steps), within.f_code)

    def _search(self, frame: FrameType | None, greenlet: Any = None) -> list[Spot]:
        # Each step of this loop costs each loan: a frame's object, and all that is said here.
        kinds = self._kinds
        found: list[Spot] = []
        left = FRAMES_MAX
        while left:
            if frame is None:
                greenlet = self._greenlet() if greenlet is None else greenlet.parent
                if greenlet is None:
                    break
                frame = greenlet.gr_frame
                continue
            code = frame.f_code
            try:
                kind = kinds[code.co_filename]
            except KeyError:
                kind = self._ask(code.co_filename)
            if kind == OWN:
                found.append((code, frame.f_lasti))
                if len(found) == LINES_TOLD:
                    break
                left = FRAMES_BETWEEN_MAX
            elif kind == CALLER and found:
                self._caller = code
                break
            else:
                left -= 1
            frame = frame.f_back
        return found

    def _within(self, frame: FrameType | None) -> FrameType | None:
        """The outermost frame within the app's own, of those in this greenlet."""
        within = None
        while frame is not None and self._kinds[frame.f_code.co_filename] != OWN:
            within, frame = frame, frame.f_back
        return within

    def lines_of(self, spots: Iterable[Any]) -> tuple[Line, ...]:
        """The same for people."""
        return tuple(
            Line(code.co_filename, _number_of(code, instruction), code.co_qualname)
            for code, instruction in spots
        )

    def _greenlet(self) -> Any:
        """That from which the running one was begun, None in the outermost."""
        if self._getcurrent is None:
            from greenlet import getcurrent  # type: ignore[import-untyped]

            self._getcurrent = getcurrent
        return self._getcurrent().parent

    def _ask(self, file: str) -> int:
        if self._roots is None:
            self._roots = code_roots()
        if len(self._kinds) >= FILES_MAX:
            self._kinds.clear()
        role = self._roots.role_of(file)
        if role == "own":
            kind = OWN
        else:
            calls = role in ("framework", "server") or file == EVENT_LOOP
            kind = CALLER if calls else PASSED
        self._kinds[file] = kind
        return kind


def _number_of(code: CodeType, instruction: int) -> int:
    position = next(islice(code.co_positions(), max(instruction, 0) // 2, None), None)
    return (position and position[0]) or code.co_firstlineno

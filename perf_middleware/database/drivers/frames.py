"""A short way to the app's own frame, which is mostly as deep as it was before.

    our hook <- sqlalchemy <- ... <- Session.execute <- app/views.py:12
                                     depth 14          where the search begins the next time

Python 3.11 and newer make a frame's object when somebody asks for it, 0.3 us each, and a statement
is some twenty frames below the app's line.  `sys._getframe(14)` makes one.  The frame that is found
must run the function that was there before, else all are walked.
What is passed over is within a call of the library's: app code that this calls back is not seen.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType


WAYS_MAX: Final = 4  # of an app's sessions: `execute`, `scalars`, `get` and a flush differ in depth


class Shortcut:
    """Remembers a few ways: how deep below whoever called `learn` a frame was, and its code.

    To be used by that same function, in a loop of its own, as a call costs more than the loop:

        for depth, code in shortcut.ways:
            try:
                frame = sys._getframe(depth)
            except ValueError:  # not so deep
                continue
            if frame.f_code is code:  # the outermost frame of the library's
                ...
    """

    __slots__ = ("ways",)

    def __init__(self) -> None:
        self.ways: tuple[tuple[int, CodeType], ...] = ()

    def learn(self, frame: FrameType) -> None:
        """Such a frame of this time; ignored where it is of another greenlet."""
        depth = 0
        above: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way without a copy
        while above is not None and above is not frame:
            above = above.f_back
            depth += 1
        if above is not None:
            way = (depth, frame.f_code)
            self.ways = (way, *(each for each in self.ways if each != way))[:WAYS_MAX]

"""The collector's settings, which a process has once, however many apps are in it.

    app A  enter(thresholds) -> sets them                      leave -> B is there still
    app B          enter(others) -> A's hold, told as such              leave -> as before A

What the first asks for holds; the last that leaves puts back what was there, unless somebody else
has changed it meanwhile.  Freezing adds up: each app freezes what is there when it has started.
What was frozen before us (by a server before it forked, say) cannot be told from ours, so then
nothing is thawed at the end; nor where somebody else has frozen more since.
"""

from __future__ import annotations

import gc
import sys
from threading import Lock
from typing import Final, TypeAlias

Thresholds: TypeAlias = tuple[int, int, int]

# CPython 3.12 lays its own immortal objects beside what is frozen, 375 of them, and takes them
# there again by itself.  A server that freezes does so with some ten thousand.
IMMORTAL_MAX: Final = 500 if sys.version_info[:2] == (3, 12) else 0


class ProcessCollector:
    """Who is in, what was there before, and what we have changed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before: Thresholds | None = None
        self._asked: Thresholds | None = None
        self._ours: Thresholds | None = None  # what became of that
        self._may_thaw: bool | None = None  # None: nothing of ours is frozen
        self.frozen = 0  # as counted at the last freeze: counting walks over all of them

    @property
    def inside(self) -> int:
        """How many apps share it now."""
        return self._inside

    def enter(self, thresholds: Thresholds | None) -> bool:
        """One more app; whether what it asks for holds, if it asks for any."""
        with self._lock:
            self._inside += 1
            if thresholds is None:
                return True
            if self._ours is None:
                self._before = gc.get_threshold()
                gc.set_threshold(*thresholds)
                # As the interpreter keeps it: some know fewer than three numbers.
                self._ours = gc.get_threshold()
                self._asked = thresholds
                return True
            return thresholds == self._asked

    def leave(self) -> None:
        """One app less; the last puts everything back."""
        with self._lock:
            self._inside -= 1
            if self._inside > 0:
                return
            before, ours = self._before, self._ours
            self._before = self._asked = self._ours = None
            if before is not None and gc.get_threshold() == ours:
                gc.set_threshold(*before)
            self._thaw_locked()

    def freeze(self) -> int:
        """Leave all objects there are out of later collections: how many are frozen now.

        Collect before, or garbage is frozen too.
        """
        with self._lock:
            if self._may_thaw is None:
                self._may_thaw = gc.get_freeze_count() <= IMMORTAL_MAX
            gc.freeze()
            self.frozen = gc.get_freeze_count()
            return self.frozen

    def thaw(self) -> bool:
        """Undo it, for all apps; False where nothing of ours is frozen, or of others too."""
        with self._lock:
            return self._thaw_locked()

    def _thaw_locked(self) -> bool:
        may_thaw, self._may_thaw = self._may_thaw, None
        # Frozen objects become fewer by themselves, never more.
        may_thaw = may_thaw and gc.get_freeze_count() <= self.frozen + IMMORTAL_MAX
        self.frozen = 0
        if may_thaw:
            gc.unfreeze()
        return bool(may_thaw)


# The one exception to "no state in a module": what it stands for is the process's, and two apps
# that each put back what they have found would leave what the other has set.
PROCESS: Final = ProcessCollector()

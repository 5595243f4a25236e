"""How long a thread keeps the interpreter lock from others: one figure for the whole process."""

from __future__ import annotations

import sys


class SwitchInterval:
    """Sets it, and puts back what was there; what somebody else has set meanwhile stays."""

    __slots__ = ("_before_s", "_ours_s")

    def __init__(self) -> None:
        self._before_s: float | None = None
        self._ours_s = 0.0

    def set(self, seconds: float) -> None:
        """From now on; in whole microseconds, as the interpreter keeps it."""
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(seconds)
        if self._before_s is None:
            self._before_s = before_s
        self._ours_s = sys.getswitchinterval()

    def restore(self) -> None:
        """As it was before; does nothing where nothing was set."""
        before_s, self._before_s = self._before_s, None
        if before_s is not None and sys.getswitchinterval() == self._ours_s:
            sys.setswitchinterval(before_s)

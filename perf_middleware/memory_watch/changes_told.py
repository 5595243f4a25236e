"""Which changes of a level are worth a line in a log: few, where it swings to and fro.

A share that swings over a step once a second would fill a log with what it said before.  The first
LINES changes are told, then one in LINE_EVERY_US; a level higher than any that was told within
HIGH_US always is.  How many were held back is said with the next line, and the level at which it
comes to rest is told in the end: the last line is true, LINE_EVERY_US later at the latest.
"""

from __future__ import annotations

from typing import Final

LINES: Final = 12  # at once
LINE_EVERY_US: Final = 20_000_000
HIGH_US: Final = 600_000_000


class ChangesTold:
    """One level (higher is worse), and what a log knows of it; one thread at a time."""

    __slots__ = ("_high", "_high_us", "_left_us", "_level", "_now_us", "_skipped", "told")

    def __init__(self, level: int) -> None:
        self.told = level
        self._level = level
        self._skipped = 0
        self._left_us = LINES * LINE_EVERY_US
        self._now_us: int | None = None
        self._high, self._high_us = level, 0

    def note(self, level: int, *, now_us: int) -> int | None:
        """The level at this moment: None where there is nothing to tell, else how many changes
        were held back before this one.
        """
        passed_us = 0 if self._now_us is None else max(0, now_us - self._now_us)
        self._now_us = now_us
        self._left_us = min(LINES * LINE_EVERY_US, self._left_us + passed_us)
        if level != self._level:
            self._level = level
            self._skipped += 1
        if level == self.told:
            return None
        is_new_high = level > self.told and (level > self._high or now_us - self._high_us > HIGH_US)
        if self._left_us < LINE_EVERY_US and not is_new_high:
            return None
        self._left_us = max(0, self._left_us - LINE_EVERY_US)
        self.told = level
        if level >= self._high or now_us - self._high_us > HIGH_US:
            self._high, self._high_us = level, now_us
        skipped, self._skipped = self._skipped - 1, 0
        return max(0, skipped)

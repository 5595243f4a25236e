"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_S: Final = 0.05
MOST_S: Final = 2.0


class Backoff:
    """Twice as long after each failure, drawn anew each time so that a fleet does not come at once.

    Full jitter: Brooker, Exponential Backoff And Jitter, 2015.  `draw` gives a number from 0 to 1.
    """

    def __init__(
        self, draw: Callable[[], float], *, first_s: float = FIRST_S, most_s: float = MOST_S
    ) -> None:
        self._draw = draw
        self._first_s = first_s
        self._most_s = most_s
        self._failures = 0

    def reset(self) -> None:
        """All is well again."""
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure; never none."""
        room_s: float = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._first_s + self._draw() * max(0.0, room_s - self._first_s)

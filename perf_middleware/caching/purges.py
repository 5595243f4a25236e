"""What was invalidated lately: an answer that was begun before must not be stored after.

leader asks the app ---------- app reads the old row ------------- answer is to be stored
                 a PUT commits, its target is invalidated --'          -> refused
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from perf_middleware.caching.invalidation import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

Concerns: TypeAlias = "Callable[[bytes, tuple[str, ...]], bool]"
"""Whether an invalidation concerns a response of this target with these tags."""

REMEMBERED_MAX: Final = 256


class PurgeLog:
    """The last invalidations, numbered."""

    __slots__ = ("_heard", "_last", "newest")

    def __init__(self) -> None:
        self.newest = 0
        self._last: deque[Concerns] = deque(maxlen=REMEMBERED_MAX)
        self._heard: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=REMEMBERED_MAX)

    def note(self, concerns: Concerns) -> None:
        """Remember an invalidation, before it is begun: of the oldest only the number is kept."""
        self.newest += 1
        self._last.append(concerns)

    def mark(self, heard: tuple[int, ...]) -> None:
        """All that other processes have told up to `heard` is among what was noted so far."""
        if self._heard and self._heard[-1][0] == self.newest:
            self._heard.pop()
        self._heard.append((self.newest, heard))

    def heard_by(self, number: int) -> tuple[int, ...] | None:
        """What had been heard of others when purge `number` was the newest; None: too long ago."""
        for at, heard in reversed(self._heard):
            if at <= number:
                return heard
        return None

    def since(self, seen: int, target: bytes, tags: tuple[str, ...]) -> bool:
        """Whether one after number `seen` concerns this response, or may: it is forgotten."""
        missed = self.newest - seen
        if not missed:
            return False
        if missed > len(self._last):
            return True
        recent = list(self._last)[-missed:]
        return any(concerns(target, tags) for concerns in recent)


def concerning(wanted: bytes, *, any_host: bool) -> Concerns:
    """Whether a response is of the target `wanted`, or of its path and query on any host."""
    names = {wanted, wanted.partition(b"?")[0]}  # a rule may have chosen of the query
    if any_host:
        return lambda target, _tags: path_of(target) in names
    return lambda target, _tags: target in names

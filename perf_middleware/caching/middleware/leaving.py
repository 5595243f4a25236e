"""A client that has left while its answer was still under way, and for whom that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


class Leaving:
    """The time since a client left; made when it does, or when a send fails."""

    def __init__(self) -> None:
        self._since_s = anyio.current_time()
        self._changed: anyio.Event | None = None

    def is_longer_ago_than(self, seconds: float) -> bool:
        return anyio.current_time() - self._since_s >= seconds

    def wake(self) -> None:
        """Something has changed of what `outlast` asks."""
        if self._changed is not None:
            self._changed.set()

    async def outlast(self, is_awaited: Callable[[], bool], *, seconds: float) -> None:
        """Return when nobody else awaits the answer any more, or after `seconds`."""
        with anyio.move_on_after(seconds):
            while is_awaited():
                self._changed = anyio.Event()
                await self._changed.wait()

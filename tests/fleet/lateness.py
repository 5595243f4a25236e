"""By how much a process, or the machine, is late: a bound in seconds holds on top of that alone."""

import asyncio
from time import monotonic
from typing import Any

LOOK_EVERY_S = 0.02


class Lateness:
    """The longest that the event loop overslept, or waited for `ask()`, so far; seconds."""

    def __init__(self, ask: Any = None) -> None:
        self.most_s = 0.0
        self._ask = ask

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due_s = monotonic() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            if self._ask is not None:
                await self._ask()
            self.most_s = max(self.most_s, monotonic() - due_s)

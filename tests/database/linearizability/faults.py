"""What befalls the workers while the clients go on.

They are killed: at any time, and between COMMIT and purge.  One is stopped for a while, one hears
nothing of Redis for a while.  Writers do not go to these two meanwhile: a writer that cannot tell
others what it has changed is beyond what is promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import TYPE_CHECKING

from tests.database.linearizability.tables import BOOKS, GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.database.linearizability.load import Load
    from tests.database.linearizability.service import Service
    from tests.database.linearizability.wire import Wire

PLAN = (
    (20.0, "kill"),
    (24.0, "cut"),
    (32.0, "kill after commit"),
    (36.0, "stop"),
    (42.0, "kill"),
    (50.0, "kill after commit"),
)
LASTS_S = 3.0
LAST_S = 6.0  # behind the last of them there is time to see what it did
JITTER_S = 0.8


class Faults:
    """All of `PLAN`, as far as there is time for it; `done` counts them."""

    def __init__(self, service: Service, wire: Wire, load: Load, seed: int) -> None:
        self._service = service
        self._wire = wire
        self._load = load
        self._draw = random.Random(seed)
        self.done: Counter[str] = Counter()
        load.on_loss = self.look

    def look(self) -> None:
        """Connections to who has died are given up."""
        self._service.note(self._wire.answered)
        for worker in self._service.dead() - self._wire.gone:
            self._wire.forget(worker)

    async def run(self, seconds: float) -> None:
        for at_s, what in PLAN:
            if at_s + LAST_S > seconds:
                return
            # The server looks after its workers every half second: who dies in just that moment is
            # missed for a while, so that nothing is to happen in step with it.
            await self._load.until(at_s + self._draw.uniform(0.0, JITTER_S))
            self.look()
            while not self._wire.workers:  # all of their connections are in use
                await asyncio.sleep(0.01)
            await self._befall(what, self._draw.choice(self._wire.workers))
            self.done[what] += 1

    async def _befall(self, what: str, worker: int) -> None:
        match what:
            case "kill":
                self._service.kill(worker)
                self.look()
            case "kill after commit":
                await self._load.write(
                    self._draw.randrange(GROUPS), "text", self._draw.randrange(BOOKS),
                    "x-die: committed", worker=worker,
                )  # fmt: skip
            case "stop":
                with self._apart(worker):
                    self._service.stop(worker)
                    try:
                        await asyncio.sleep(LASTS_S)
                    finally:
                        self._service.go_on(worker)
            case "cut":
                with self._apart(worker):
                    self._service.cut(worker)
                    try:
                        await asyncio.sleep(LASTS_S)
                    finally:
                        self._service.mend()
                    await asyncio.sleep(LASTS_S)  # it finds back first

    @contextlib.contextmanager
    def _apart(self, worker: int) -> Iterator[None]:
        """It is not drawn meanwhile; who follows a write asks it by name."""
        self._wire.held.add(worker)
        try:
            yield
        finally:
            self._wire.held.discard(worker)

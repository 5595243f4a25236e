"""What was asked for most, in a file beside the app: for the next run of this service.

One line for each request: its score, a tab, the request.  Written anew and renamed into place, so
that nobody reads half of it.  Where several workers write at the same moment one of them may be
lost, until it writes again.  A disk that hangs holds up neither a run nor the end.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from perf_middleware.caching.warming.replay import ASK_BYTES_MAX, as_text, of_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from perf_middleware.caching.warming.plan import Ask

logger = logging.getLogger("perf_middleware.caching")

REMEMBERED: Final = 0.5  # of what was written before, at each writing


class FileHottest:
    """At most `asks_max` requests in `directory`, which is made where it is not there."""

    def __init__(self, directory: Path, *, service: str, asks_max: int) -> None:
        self._path = directory / f"{service}.warming"
        self._asks_max = asks_max
        self._told = False
        self._writing = threading.Lock()

    async def load(self) -> list[Ask]:
        """The hottest first; none where there is no such file, or nothing in it makes sense."""
        scores = await anyio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        return [ask for ask, _ in _best(scores, self._asks_max)]

    async def save(self, asks: Sequence[tuple[Ask, float]], *, forget: bool = True) -> None:
        """Write these beside what is there; a disk that takes nothing is told once."""
        try:
            await anyio.to_thread.run_sync(self._write, list(asks), forget, abandon_on_cancel=True)
        except OSError as error:
            if not self._told:
                self._told = True
                logger.warning("what was asked for most could not be kept: %s", error)

    def _read(self) -> dict[Ask, float]:
        scores: dict[Ask, float] = {}
        with suppress(OSError, UnicodeDecodeError), self._path.open(encoding="utf-8") as lines:
            for line in lines.read(self._asks_max * 2 * ASK_BYTES_MAX).splitlines():
                score, _, text = line.partition("\t")
                ask = of_text(text)
                with suppress(ValueError):
                    if ask is not None and 0 < float(score) < float("inf"):
                        scores[ask] = float(score)
        return scores

    def _write(self, asks: list[tuple[Ask, float]], forget: bool) -> None:
        with self._writing:  # the last time may be while the one before it still waits for the disk
            self._write_locked(asks, forget)

    def _write_locked(self, asks: list[tuple[Ask, float]], forget: bool) -> None:
        share = REMEMBERED if forget else 1.0
        scores = {ask: score * share for ask, score in self._read().items()}
        for ask, score in asks:
            scores[ask] = scores.get(ask, 0.0) + score
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            for ask, score in _best(scores, self._asks_max):
                file.write(f"{score:.3f}\t{as_text(ask)}\n")
        fresh.replace(self._path)


def _best(scores: dict[Ask, float], count: int) -> list[tuple[Ask, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])[:count]

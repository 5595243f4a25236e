"""What purges take of the warmed, to be asked for again once they are over for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from perf_middleware.caching.warming.plan import VARIANTS_MAX
from perf_middleware.caching.warming.runtime.asking import is_for_warming

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.warming.plan import Ask

K = TypeVar("K")
V = TypeVar("V")

OVERTAKEN_MAX: Final = 3  # times in a row: an endpoint may purge itself whenever it is asked


class Purged:
    """Remembers what was warmed under `keys_max` keys, in VARIANTS_MAX ways each: the newest."""

    def __init__(self, *, keys_max: int, quiet_s: float) -> None:
        self._keys_max = keys_max
        self._quiet_s = quiet_s
        self._warmed: dict[bytes, dict[Ask, None]] = {}  # by primary key
        self._overtaken: dict[Ask, int] = {}
        self._purged: dict[Ask, None] = {}
        self._heard: anyio.Event | None = None

    def begin(self) -> None:
        """The app has started, perhaps again."""
        self._purged.clear()
        self._heard = anyio.Event()

    def end(self) -> None:
        self._heard = None

    def note_warmed(self, primary: bytes, ask: Ask) -> None:
        self._overtaken.pop(ask, None)
        # Parameters that the key leaves out make as many of one key as a function can think of.
        asks = self._warmed.pop(primary, {})
        _add_newest(asks, ask, None, count_max=VARIANTS_MAX)
        _add_newest(self._warmed, primary, asks, count_max=self._keys_max)

    def note_overtaken(self, ask: Ask) -> None:
        """A purge came before its answer, which was not stored for that."""
        tries = self._overtaken.pop(ask, 0)
        if tries < OVERTAKEN_MAX:
            _add_newest(self._overtaken, ask, tries + 1, count_max=self._keys_max)
            self._ask_soon([ask])

    def note_purge(self, stored: StoredResponse) -> None:
        """A hook of every purge: a look-up for each response that it takes.

        What the app purges as warming asks it does not count: that would go on for ever.
        """
        asks = self._warmed.get(stored.primary)
        if asks and not is_for_warming():
            self._ask_soon(asks)

    def _ask_soon(self, asks: Iterable[Ask]) -> None:
        if self._heard is not None:
            self._purged |= dict.fromkeys(asks)
            self._heard.set()

    async def gathered(self) -> list[Ask]:
        """Wait for a purge, and until no other one takes more: what they have taken."""
        assert self._heard is not None  # noqa: S101 - it has begun
        await self._heard.wait()
        seen = -1
        while seen != len(self._purged):  # one purge is often the first of several
            seen = len(self._purged)
            await anyio.sleep(self._quiet_s)
        taken, self._purged = list(self._purged), {}
        self._heard = anyio.Event()
        return taken


def _add_newest(known: dict[K, V], key: K, value: V, *, count_max: int) -> None:
    """Behind the others; where there is no room the oldest goes."""
    known.pop(key, None)
    known[key] = value
    if len(known) > count_max:
        del known[next(iter(known))]

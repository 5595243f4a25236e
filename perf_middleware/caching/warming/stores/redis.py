"""Warming in Redis: whose turn it is, and what was asked for most, of all processes.

{app:warming}turn      the token of the process that warms; runs out soon after it has died
{app:warming}renew:…   of the process that renews this response just now
{app:warming}hot       sorted set of requests by score
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.warming.replay import as_text, of_text
from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.caching.warming.plan import Ask
    from perf_middleware.fleet.runtime import Fleet

logger = logging.getLogger("perf_middleware.caching")

TURN_MS: Final = 15_000
KEPT_MS: Final = 7 * 24 * 3_600 * 1_000
SAVED_AT_ONCE: Final = 200
_TURN = Script("turn", package=__package__)
_REMEMBER = Script("remember", package=__package__)


class SharedTurn:
    """The right of one process to warm what all of them share."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._key = b"{%s:warming}turn" % fleet.namespace.encode()
        self._token = os.urandom(8).hex()

    async def take(self) -> bool:
        """Whether it is this process's, for TURN_MS from now.

        True too where Redis does not answer: then each process has but its own memory.
        """
        try:
            answer = await self._fleet.link.run(_TURN, (self._key,), (self._token, TURN_MS))
        except (StoreUnavailableError, StoreRefusedError):
            return True
        return bool(answer)

    async def give_back(self) -> None:
        """Let another process have it at once."""
        with suppress(StoreUnavailableError, StoreRefusedError):  # it runs out by itself
            await self._fleet.link.run(_TURN, (self._key,), (self._token, 0))


class SharedRenewals:
    """The right to renew one stored response, of all processes that find it due."""

    def __init__(self, fleet: Fleet, *, request_s: float) -> None:
        self._fleet = fleet
        self._ms = round(request_s * 1_000)
        self._token = os.urandom(8).hex()

    async def take(self, key: bytes) -> bool:
        """Whether it is this process's, until `give_back` or the time of a request is over.

        True too where Redis does not answer.
        """
        try:
            answer = await self._run(key, self._ms)
        except (StoreUnavailableError, StoreRefusedError):
            return True
        return bool(answer)

    async def give_back(self, key: bytes) -> None:
        with suppress(StoreUnavailableError, StoreRefusedError):  # it runs out by itself
            await self._run(key, 0)

    async def _run(self, key: bytes, ms: int) -> Any:
        digest = blake2b(key, digest_size=16).hexdigest().encode()
        place = b"{%s:warming}renew:%s" % (self._fleet.namespace.encode(), digest)
        return await self._fleet.link.run(_TURN, (place,), (self._token, ms))


class SharedHottest:
    """What was asked for most, of all processes together."""

    def __init__(self, fleet: Fleet, *, asks_max: int) -> None:
        self._fleet = fleet
        self._key = b"{%s:warming}hot" % fleet.namespace.encode()
        self._asks_max = asks_max

    async def load(self) -> list[Ask]:
        """The hottest first; none where Redis does not answer."""
        try:
            lines = await self._fleet.link.command("ZREVRANGE", self._key, 0, self._asks_max - 1)
        except (StoreUnavailableError, StoreRefusedError):
            return []
        return [ask for ask in map(of_text, lines) if ask is not None]

    async def save(self, asks: Sequence[tuple[Ask, float]], *, forget: bool) -> None:
        """Add these scores; `forget` halves those before, as one of all processes does."""
        try:
            for start in range(0, len(asks), SAVED_AT_ONCE):
                words: list[str | int] = []
                for ask, score in asks[start : start + SAVED_AT_ONCE]:
                    words += [f"{score:.3f}", as_text(ask)]
                await self._fleet.link.run(
                    _REMEMBER,
                    (self._key,),
                    (self._asks_max, KEPT_MS, int(forget and not start), *words),
                )
        except (StoreUnavailableError, StoreRefusedError) as error:
            logger.debug("what was asked for most could not be kept: %s", error)

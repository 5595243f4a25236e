"""What the processes of a service share about warming, as warming sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.caching.warming.plan import Ask


class Turn(Protocol):
    """Which of the processes that share a cache is the one that warms it."""

    async def take(self) -> bool:
        """Whether it is this one, for a while; asked again in time it stays so."""

    async def give_back(self) -> None:
        """Let another process have it."""


class Renewals(Protocol):
    """Which of the processes that find the same stored response due is the one that renews it."""

    async def take(self, key: bytes) -> bool:
        """Whether it is this one, until `give_back`, or for a while."""

    async def give_back(self, key: bytes) -> None:
        """It is done: the others find it renewed."""


class Hottest(Protocol):
    """What was asked for most, from one run of the app to the next; fails open."""

    async def load(self) -> list[Ask]:
        """The hottest first."""

    async def save(self, asks: Sequence[tuple[Ask, float]], *, forget: bool) -> None:
        """Add these scores to those that are there; `forget`: to the half of them."""

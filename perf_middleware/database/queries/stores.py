"""Where the query cache keeps what was read: the port, and what it hands over.

The value cache stands behind it in an app; the features do not know each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What one run has read.  `copy` False: it is made of what nobody can change."""

    value: Any
    tags: tuple[str, ...]
    ttl_us: int
    copy: bool
    is_to_keep: bool


class Kept(Protocol):
    """A value that is there."""

    def give(self) -> Any:
        """It, for one caller."""


class Shelf(Protocol):
    """Keeps values by key, and forgets them by tag in all processes."""

    @property
    def is_on(self) -> bool:
        """Whether it keeps anything."""

    @property
    def newest_purge(self) -> int:
        """How many purges there were, this process's own and those it has heard of."""

    def find(self, key: str) -> Kept | None:
        """What is in this process's memory and as good as anywhere else, without waiting."""

    async def get_or_make(
        self, key: str, make: Callable[[], Awaitable[Made]], *, holds: bool = False
    ) -> tuple[Any, str]:
        """The value under `key`, or what `make()` makes once for all who ask meanwhile.

        What was purged by one of its tags since `make` began is not kept.  The text says what
        became of it: `hit`, `collapsed`, `stored`, `unkept`, or why it was not kept.
        Who `holds` a connection does not wait for a run that may have to wait for one.
        """

    async def purge(self, tags: Collection[str]) -> int:
        """Forget what has any of `tags`: how many values."""

    def purge_here(self, tags: Collection[str]) -> None:
        """The same in this process's memory alone, at once and from any thread."""

    def owe(self, tags: Collection[str]) -> None:
        """Let other processes hear of such a purge when that is possible; from any thread."""

    async def forget(self, key: str) -> bool:
        """Forget what is under `key`: whether there was something."""

    def named(self, key: str) -> str:
        """`key`, cut with a digest where it is too long."""

    def text_of(self, value: object) -> str | None:
        """A text that no other value of any type has; None where there is none."""

    def register(self, cls: type) -> bool:
        """Let objects of a dataclass, model, enum or named tuple be kept; False: it is none."""

    def learn(self, function: Callable[..., Any]) -> None:
        """Register what `function` is annotated to return."""

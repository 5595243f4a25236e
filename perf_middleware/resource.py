"""The lifespan plugin's port: what can be opened with the app and closed after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Background(Protocol):
    """Runs a resource's long-lived tasks until the app stops."""

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run()` as a task.  It is cancelled after every resource has been closed; if it
        raises, the failure is logged and counted and the app goes on.
        """


class Resource(Protocol):
    """Something that lives as long as the app: a pool, a sampler, a queue.

    `open` and `close` may each take only so long (the plugin sets the deadline by cancelling them).
    `close` is also called after an `open` that failed half way, and must then do no harm.
    """

    name: str
    required: bool

    async def open(self, background: Background) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture; cheap, never waits."""

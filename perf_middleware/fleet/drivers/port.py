"""What a way to Redis is, whichever leads there, and the small things that all of them need."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from perf_middleware.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from perf_middleware.fleet.stores.script import Script

STORE: Final = "Redis"
GRACE_S: Final = 0.02  # an answer that came while the event loop was blocked is not a late one
SCANNED_AT_ONCE: Final = 500


class Link(Protocol):
    """The way to a server, or to a cluster of them."""

    @property
    def is_up(self) -> bool:
        """Whether it is used; False: every command fails at once."""

    def server_ms(self) -> int:
        """The server's clock, Unix time in milliseconds: the one that all processes share."""

    async def command(self, *words: bytes | str | int) -> Any:
        """The server's answer.

        Raises StoreUnavailableError at once while it is away, and as soon as it is known to be;
        StoreRefusedError for an error that it answers with.
        """

    def get(self, key: bytes) -> Awaitable[bytes | None]:
        """What is under `key`; raises as `command`, some of it before it is awaited."""

    async def get_several(self, *keys: bytes) -> list[bytes | None]:
        """What is under these keys of one hash slot, in one round trip; raises as `command`."""

    async def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> Any:
        """The answer of a script whose keys are of one hash slot; raises as `command` does."""

    async def run_script(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> Any:
        """The same while the link is being made, before `connected` has returned."""

    def scan(self, prefix: bytes) -> AsyncIterator[list[bytes]]:
        """All keys that begin so, in slices; one may come twice."""

    async def subscribe(self, *channels: bytes) -> None:
        """Hear these channels too, for as long as this connection lasts; raises as `command`."""

    def give_up(self, why: str) -> None:
        """It is not to be used before it has been made anew; does nothing while it is away."""


def literal(text: bytes) -> bytes:
    """`text` as a pattern that matches nothing else."""
    for special in (b"\\", b"*", b"?", b"[", b"]"):
        text = text.replace(special, b"\\" + special)
    return text


def require_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Raises StoreUnavailableError outside of `loop`: a connection belongs to one."""
    if loop is not running_loop():
        raise StoreUnavailableError(STORE, "another event loop uses it")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """asyncio's; None where another library runs the app."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def closed(connection: Any) -> None:
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        # What is unsent would keep a socket open that nobody reads.
        writer.transport.abort()
    with suppress(Exception):  # it is gone either way
        await connection.disconnect(nowait=True)


def told(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    text = str(error).strip()
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__

"""A request's work on trio: a cancel scope around it, and a system task that watches the clock.

As all cancellation of trio: each wait of the cleanup is cancelled too, unless it is shielded.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.limits.deadlines.drivers.lines import Expires


class TrioWork:
    """As AsyncioWork; its timer is its own: `join` and `leave` are those of a line."""

    __slots__ = ("_answer", "_error", "_is_answered", "_scope", "_timeout_s", "_watch")

    def __init__(self, timeout_us: int) -> None:
        self._timeout_s = timeout_us / 1_000_000
        self._scope = trio.CancelScope()
        self._watch = trio.CancelScope()
        self._answer: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._is_answered = trio.Event()
        self._error: Exception | None = None

    def join(self, who: Expires) -> None:
        # Spawned outside of the request's scope, which a slow cleanup or a thread keeps open.
        trio.lowlevel.spawn_system_task(self._keep_time, who, context=copy_context())

    def leave(self, who: Expires) -> None:
        if self._answer is None:
            self._watch.cancel()

    def around(self, app: ASGIApp) -> ASGIApp:
        async def inside(scope: Scope, receive: Receive, send: Send) -> Any:
            with self._scope:
                return await app(scope, receive, send)

        return inside

    def expire(self, answer: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        self._answer = answer
        self.cancel()

    def cancel(self) -> None:
        self._scope.cancel()

    def take_back(self) -> bool:
        return False  # the scope has kept what is ours

    async def answered(self) -> None:
        if self._answer is not None:
            await self._is_answered.wait()
            if self._error is not None:
                raise self._error

    def abandon(self) -> None:
        self._watch.cancel()

    async def _keep_time(self, who: Expires) -> None:
        with self._watch:
            await trio.sleep(self._timeout_s)
            who.expire()
            if self._answer is not None:
                try:
                    await self._answer()
                except Exception as exc:  # noqa: BLE001 - the request's own task raises it
                    self._error = exc
        self._is_answered.set()

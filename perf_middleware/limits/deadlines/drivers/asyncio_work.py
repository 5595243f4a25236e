"""A request's work on asyncio: cancelled once, as `asyncio.timeout` does, and taken back.

The task is cancelled natively, so that cleanup may wait: a cancel scope of anyio would cancel each
wait in it again.  But anyio's shields hold, above all that around a thread: a yield dependency must
not close what the thread still uses, nor its token go to another.  So while the task is in a shield
that was made inside of us, it is looked at again every SHIELD_CHECK_S.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from anyio._backends import _asyncio as anyio_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from perf_middleware.asgi import ASGIApp

SHIELD_CHECK_S: Final = 0.05

# Not public; without it shields are not seen, and a request is cancelled as asyncio.timeout does.
_STATES: Final = getattr(anyio_asyncio, "_task_states", {})


class AsyncioWork:
    """The task of one request, from before the app is called until it has come to its end."""

    __slots__ = (
        "_answer", "_cancelling_before", "_check", "_context", "_has_cancelled", "_scope_before",
        "_task",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a request is served outside of any task")
        self._task = task
        self._cancelling_before = task.cancelling()
        state = _STATES.get(task)
        self._scope_before = None if state is None else state.cancel_scope
        # What sends an answer is to see what those outside have set for this request.
        self._context = copy_context()
        self._has_cancelled = False
        self._answer: asyncio.Task[None] | None = None
        self._check: asyncio.TimerHandle | None = None

    def around(self, app: ASGIApp) -> ASGIApp:
        return app

    def expire(self, answer: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Send the answer, if there is one, and cancel the work; from a callback of the loop."""
        if answer is not None:
            loop = asyncio.get_running_loop()
            self._answer = loop.create_task(answer(), context=self._context)
        self.cancel()

    def cancel(self) -> None:
        """Cancel the work, once; behind its shields."""
        self._stop_checking()
        if self._has_cancelled:
            return
        if self._is_shielded():
            loop = asyncio.get_running_loop()
            self._check = loop.call_later(SHIELD_CHECK_S, self.cancel, context=self._context)
            return
        self._has_cancelled = True
        self._task.cancel("perf_middleware: the deadline of the request is reached")

    def take_back(self) -> bool:
        """The work has come to its end: whether a cancellation that came out of it is ours."""
        self._stop_checking()
        return self._has_cancelled and self._task.uncancel() <= self._cancelling_before

    async def answered(self) -> None:
        """Wait for the answer.  Raises what sending it raised."""
        if self._answer is not None:
            await self._answer  # who cancels this, cancels that

    def abandon(self) -> None:
        """Nobody will wait for the answer."""
        if self._answer is not None:
            self._answer.cancel()

    def _stop_checking(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _is_shielded(self) -> bool:
        state = _STATES.get(self._task)
        scope = None if state is None else state.cancel_scope
        while scope is not None and scope is not self._scope_before:
            if scope.shield:
                return True
            scope = getattr(scope, "_parent_scope", None)
        return False

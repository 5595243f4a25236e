"""One request of warming's through the app, in process; what it answers nobody reads."""

from __future__ import annotations

from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from perf_middleware.caching.runtime.request import Silence
from perf_middleware.caching.warming.asked import WARMING, Asked
from perf_middleware.cancellation import ENDING, is_being_cancelled
from perf_middleware.error_text import told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from perf_middleware.asgi import ASGIApp, Message
    from perf_middleware.caching.warming.plan import Ask

FAILED_FROM = 500
_ASKING: Final[ContextVar[Asked | None]] = ContextVar("perf_middleware.warming", default=None)


def is_for_warming() -> bool:
    """Whether this is done for a request of warming's that is under way."""
    asked = _ASKING.get()
    return asked is not None and not asked.is_over


class _Unread(Silence):
    """Nobody listens, but the status is seen, and the end."""

    def __init__(self, deadline: anyio.CancelScope) -> None:
        super().__init__()
        self.status = 0
        self._deadline = deadline

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            # What the app does behind its answer is cut off no more than with a client.
            self._deadline.deadline = inf


async def ask_app(
    app: ASGIApp, ask: Ask, *, state: Mapping[str, Any], timeout_s: float, margin_us: int = 0
) -> Asked:
    """Send `ask` through `app`: what came of it, with `outcome` set.

    Raises nothing of the app's: a failure is an outcome.  `state` is that of the lifespan.
    """
    asked = Asked(margin_us)
    scope = ask.scope() | {"state": dict(state), WARMING: asked}
    mark = _ASKING.set(asked)
    try:
        with anyio.move_on_after(timeout_s) as deadline:
            unread = _Unread(deadline)
            try:
                await app(scope, unread.receive, unread.send)
            except ENDING:
                raise
            except anyio.get_cancelled_exc_class():
                if is_being_cancelled():
                    raise
                asked.outcome, asked.why = "failed", "what it waited for was cancelled"
            except BaseException as error:  # noqa: BLE001 - whatever an app raises, also where it
                # is no Exception, as servers do: this was no client's, and the lifespan goes on.
                asked.outcome, asked.why = "failed", told(error)[:200]
    finally:
        _ASKING.reset(mark)
        asked.is_over = True  # a task that the app has begun meanwhile may go on for ever
    if deadline.cancelled_caught:
        asked.outcome, asked.why = "failed", f"no answer within {timeout_s:g} s"
    elif unread.status >= FAILED_FROM and asked.outcome != "failed":
        asked.outcome, asked.why = "failed", f"status {unread.status}"
    elif asked.outcome is None:
        asked.outcome = "unstored"
        asked.why = f"answered with {unread.status} before the cache was asked"
    elif asked.outcome == "unstored" and not asked.why:
        asked.why = f"status {unread.status}"
    return asked

"""One request of warming's through the app, in process; what it answers nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from perf_middleware.caching.runtime.request import Silence
from perf_middleware.caching.warming.asked import WARMING, Asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from perf_middleware.asgi import ASGIApp, Message
    from perf_middleware.caching.warming.plan import Ask

FAILED_FROM = 500


class _Unread(Silence):
    """Nobody listens, but the status is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]


async def ask_app(
    app: ASGIApp, ask: Ask, *, state: Mapping[str, Any], timeout_s: float, margin_us: int = 0
) -> Asked:
    """Send `ask` through `app`: what came of it, with `outcome` set.

    Raises nothing of the app's: a failure is an outcome.  `state` is that of the lifespan.
    """
    asked = Asked(margin_us)
    unread = _Unread()
    scope = ask.scope() | {"state": dict(state), WARMING: asked}
    with anyio.move_on_after(timeout_s) as deadline:
        try:
            await app(scope, unread.receive, unread.send)
        except Exception as error:  # noqa: BLE001 - whatever an app raises: this was no client's
            asked.outcome, asked.why = "failed", f"{type(error).__name__}: {error}"[:200]
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

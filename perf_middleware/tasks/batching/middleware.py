"""One scope for each HTTP request: what `cache="request"` remembers until its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.tasks.batching.runtime.scopes import CURRENT, BatchScope

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send


class BatchScopeMiddleware:
    """Have look-ups with `cache="request"` remembered to the end of each HTTP request.

    A websocket has none: what it asks for hours would never change; `batch_scope()` is for its
    messages.  Background tasks of the response are within; tasks that go on after that ask anew.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        batches = BatchScope()
        token = CURRENT.set(batches)
        try:
            return await self.app(scope, receive, send)
        finally:
            batches.end()
            CURRENT.reset(token)

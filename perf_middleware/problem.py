"""Errors of our own as problem+json (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import send_response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.asgi import Scope, Send

PROBLEM: Final = b"application/problem+json"
NO_STORE: Final = (b"cache-control", b"no-store")


async def send_problem(
    scope: Scope,
    send: Send,
    status: int,
    detail: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    title: str | None = None,
) -> None:
    """Send an error that nobody is to keep; `detail` is one plain sentence."""
    import orjson

    told: dict[str, Any] = {"status": status}
    if title is not None:
        told["title"] = title
    told["detail"] = detail
    await send_response(
        scope,
        send,
        status=status,
        body=orjson.dumps(told),
        content_type=PROBLEM,
        headers=(NO_STORE, *headers),
    )

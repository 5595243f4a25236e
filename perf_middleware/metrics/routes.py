"""The metrics page: text, OpenMetrics or JSON, whichever the reader asks for."""

from __future__ import annotations

import zlib
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from perf_middleware.asgi import send_response
from perf_middleware.metrics.exposition.negotiation import Format, accepts_gzip, negotiate
from perf_middleware.metrics.exposition.page import CONTENT_TYPES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from perf_middleware.asgi import Receive, Scope, Send
    from perf_middleware.metrics.runtime import Metrics

GZIP_LEVEL = 1  # a page of numbers: level 6 saves 5 % more bytes for three times the time
GZIP_WBITS = 31
HEADERS = ((b"cache-control", b"no-store"), (b"vary", b"accept, accept-encoding"))
AT_ONCE_MAX = 8  # scrapes waited for, rendered or sent; Prometheus keeps one open, a pair two
SEND_S_MAX = 60.0  # a reader that takes longer would keep its place for ever
SEND_S_SURE = 10.0  # Prometheus gives up by then; whoever reads on may lose its place to a new one


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A page as it leaves: in the form and coding of `wanted`, begun at `began_ns`."""

    wanted: tuple[Format, bool]
    began_ns: int
    parts: list[bytes]


class MetricsPage:
    """Answers a scrape: rendered in slices, so that a page of any size never holds the loop up.

    One page is rendered at a time, and whoever came before it was begun shares it.  AT_ONCE_MAX
    scrapes are served at once; a further one takes the place of the oldest, if that has had
    SEND_S_SURE seconds, or is told to come again (503 with Retry-After).
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._rendering = anyio.Lock()
        self._served: dict[anyio.CancelScope, float] = {}  # began_s of each, the oldest first
        self._kept: _Rendered | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now_s = anyio.current_time()
        if len(self._served) >= AT_ONCE_MAX and not self._makes_room(now_s):
            await send_response(
                scope,
                send,
                status=503,
                body=b"too many scrapes at once\n",
                content_type=b"text/plain; charset=utf-8",
                headers=(*HEADERS, (b"retry-after", b"1")),
            )
            return
        with anyio.move_on_after(SEND_S_MAX) as place:
            self._served[place] = now_s
            try:
                await self._answer(scope, send)
            finally:
                self._served.pop(place, None)
                if not self._served:
                    self._kept = None

    def _makes_room(self, now_s: float) -> bool:
        oldest, began_s = next(iter(self._served.items()))
        if now_s - began_s < SEND_S_SURE:
            return False
        del self._served[oldest]
        oldest.cancel()
        return True

    async def _answer(self, scope: Scope, send: Send) -> None:
        form = negotiate(_list_header(scope, b"accept"))
        gzipped = accepts_gzip(_list_header(scope, b"accept-encoding"))
        headers = [
            (b"content-type", b"application/json" if form == "json" else CONTENT_TYPES[form]),
            *HEADERS,
        ]
        if gzipped:
            headers.append((b"content-encoding", b"gzip"))
        parts = await self._rendered(form, gzipped=gzipped)  # before the head: it may fail
        headers.append((b"content-length", str(sum(map(len, parts))).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts if scope["method"] != "HEAD" else ():
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b""})

    async def _rendered(self, form: Format, *, gzipped: bool) -> list[bytes]:
        came_ns = perf_counter_ns()
        async with self._rendering:
            kept = self._kept
            if kept is None or kept.wanted != (form, gzipped) or kept.began_ns < came_ns:
                began_ns = perf_counter_ns()
                parts = await self._render(form, gzipped=gzipped)
                kept = self._kept = _Rendered((form, gzipped), began_ns, parts)
            return kept.parts

    async def _render(self, form: Format, *, gzipped: bool) -> list[bytes]:
        compress = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WBITS) if gzipped else None
        parts = []
        async with aclosing(self._chunks(form)) as chunks:
            async for chunk in chunks:
                part = chunk if compress is None else compress.compress(chunk)
                if part:
                    parts.append(part)
                await anyio.lowlevel.checkpoint()
        if compress is not None:
            parts.append(compress.flush())
        return parts

    async def _chunks(self, form: Format) -> AsyncGenerator[bytes, None]:
        if form != "json":
            async for chunk in self._metrics.page(form):
                yield chunk
            return
        import orjson

        yield orjson.dumps(await self._metrics.summary(), option=orjson.OPT_INDENT_2)


class ResetCounts:
    """Sets every count back to zero and says so."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._metrics.reset()
        await send_response(
            scope,
            send,
            status=200,
            body=b'{"reset":true}',
            content_type=b"application/json",
            headers=((b"cache-control", b"no-store"),),
        )


def _list_header(scope: Scope, name: bytes) -> bytes | None:
    """All lines of a list header as one, None without any (RFC 9110 §5.3)."""
    lines = [value for key, value in scope["headers"] if key == name]
    return b", ".join(lines) if lines else None

"""What endpoints of Starlette and FastAPI return: `OrjsonResponse` and `StreamingJSONResponse`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response

from perf_middleware.serialisation.encoding import encode
from perf_middleware.serialisation.pieces import LINES, Gatherer, Layout
from perf_middleware.serialisation.runtime import Outlet, Pace, close, stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.background import BackgroundTask

    from perf_middleware.asgi import Receive, Scope, Send

# Larger pieces are no faster (benchmarks/serialisation.py), and a server holds back what is more.
PIECE_BYTES: Final = 65_536
PIECE_WAIT_S: Final = 0.05  # nobody sees it; a fast source gives a thousand items meanwhile
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


class OrjsonResponse(JSONResponse):
    """A JSONResponse rendered by orjson, which is faster and takes more types; NaN becomes null.

    Raises TypeError, which names the place of what cannot be JSON.
    """

    def render(self, content: Any) -> bytes:
        return encode(content)


class StreamingJSONResponse(Response):
    """A JSON array that is sent while its items come: `content` is an iterable, async or not.

    `lines` sends NDJSON instead, one item a line; `key` puts the array into an object, under that
    name.  Items are gathered to pieces of about `piece_bytes`, and none waits for longer than
    `piece_wait_s`.  What is not async is iterated in a thread, and what waits there is sent
    with the next item.

    An error of the source before anything was sent is one of the endpoint (500).  Later it is
    raised too, and the server cuts the connection: the client sees a body without its end.
    """

    media_type = JSON

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        *,
        lines: bool = False,
        key: str | None = None,
        piece_bytes: int = PIECE_BYTES,
        piece_wait_s: float = PIECE_WAIT_S,
    ) -> None:
        if lines and key is not None:
            raise ValueError("lines have no object around them: give lines or key, not both")
        if not isinstance(content, AsyncIterable | Iterable):
            raise TypeError(f"content must be iterable, not {type(content).__name__}")
        self._content = content
        self._layout = LINES if lines else Layout.array(key)
        self._pace = Pace(piece_bytes=piece_bytes, piece_wait_s=piece_wait_s)
        self.status_code = status_code
        self.background = background
        if media_type is not None:
            self.media_type = media_type
        elif lines:
            self.media_type = NDJSON
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # a handshake that is answered with a response
            send = self._wrap_websocket_denial_send(send)
        outlet = Outlet(send, status=self.status_code, headers=self.raw_headers)
        if scope.get("method") == "HEAD":  # nobody would see what the source gives
            await outlet.end_without_body()
            await close(self._content)
        else:
            await stream(self._content, Gatherer(self._layout), outlet, receive, self._pace)
        if self.background is not None:
            await self.background()

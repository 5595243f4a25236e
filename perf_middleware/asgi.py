"""The ASGI types and the few message helpers that every layer shares (ASGI 3.0, spec 2.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[Any]]
"""Returns None; a layer passes on whatever else is returned, so that the server can complain."""


class HoldsApp(Protocol):
    """A layer: it calls the next one by its `app`, which it looks up at each call."""

    app: ASGIApp


class Around:
    """A layer around `app`: tools and who steps aside know that one by its name.

    Requests go to `below`, which is the same.  Of another layer it is the method: to call an object
    takes three times as long as to call its method, and there are many layers.
    """

    below: ASGIApp

    @property
    def app(self) -> ASGIApp:
        return self._app

    @app.setter
    def app(self, app: ASGIApp) -> None:
        self._app = app
        self.below = app.__call__ if isinstance(app, Around) else app

    if TYPE_CHECKING:

        def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
            """Serve a request: each layer says how."""


@runtime_checkable
class StepsAside(Protocol):
    """A layer that is called only while there is something to do."""

    def stand_below(self, above: HoldsApp) -> object:
        """`above` calls this one: it may be told to call the one below instead, and back."""


SAFE_IN_PATHS: Final = "/:@!$&'()*+,;=~"
"""What stands in a path as it is (RFC 3986 §3.3)."""

RawHeaders: TypeAlias = "Iterable[tuple[bytes, bytes]]"


def header_pairs(headers: Iterable[Iterable[bytes]] | None) -> list[tuple[bytes, bytes]]:
    """Header fields to be read more than once.

    ASGI allows any iterable of two-item iterables, and a test may make a scope without them.
    """
    return [(name, value) for name, value in headers or ()]


def find_header(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of `name` (lower case, as ASGI servers send it), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def raw_path(scope: Scope) -> bytes:
    """The path as it was sent; escaped again for a server that does not tell."""
    path: bytes | None = scope.get("raw_path")
    if path is not None:
        return path
    text: str = scope["path"]
    return quote(text.encode("utf-8", "surrogateescape"), safe=SAFE_IN_PATHS).encode()


def app_path(scope: Scope) -> str:
    """The request path below `root_path`, as a router of this app sees it.

    Servers either prepend `root_path` to `path` (ASGI) or leave it out (a proxy that strips it);
    both give the same answer here.
    """
    root_path: str | None = scope.get("root_path")
    path: str = scope["path"]
    return path_below(root_path, path) if root_path else path


def path_below(root_path: str, path: str) -> str:
    """What of `path` is below `root_path`; all of it where it does not begin with that."""
    if not root_path:
        return path
    if path == root_path:
        return ""
    if path.startswith(root_path) and path[len(root_path)] == "/":
        return path[len(root_path) :]
    return path


def tell_outside(scope: Scope, seen: Scope) -> None:
    """Write into `scope` what the router wrote into `seen`, its copy with other headers.

    Layers outside read the route, and what its endpoint has chosen, where no copy was made.
    """
    scope.update({**seen, "headers": scope["headers"]})


def telling_outside(app: ASGIApp, scope: Scope) -> ASGIApp:
    """`app`, to be called with a copy of `scope`: what its router writes is told in time."""

    async def call(seen: Scope, receive: Receive, send: Send) -> Any:
        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                tell_outside(scope, seen)
            return send(message)

        try:
            return await app(seen, receive, sending)
        finally:
            tell_outside(scope, seen)

    return call


async def send_response(
    scope: Scope,
    send: Send,
    *,
    status: int,
    body: bytes,
    content_type: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send one complete response; a HEAD request gets the same headers and no body."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

"""The operator endpoints: answered here, before any limit and without any route of the app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perf_middleware.asgi import Around, app_path, find_header, send_response
from perf_middleware.problem import NO_STORE, send_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send
    from perf_middleware.dashboard.access import TokenGate

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers at one operator path: `methods` in the order of the Allow field.

    `gate` None leaves it open.
    """

    answer: ASGIApp
    methods: tuple[str, ...] = ("GET", "HEAD")
    gate: TokenGate | None = None


class OperatorEndpoints(Around):
    """Answers the paths of its table itself and passes everything else on.

    `takes(path)` hears of each answer before it is given, and may leave it to the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        endpoints: Mapping[str, Endpoint],
        takes: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self.app = app
        self._endpoints = endpoints
        self._takes = takes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"] in self._endpoints or scope.get("root_path"):
            path = app_path(scope)
            endpoint = self._endpoints.get(path)
            if endpoint is not None and scope["type"] == "http" and self._takes(path):
                return _answer(endpoint, scope, receive, send)
        below = self.below
        return below(scope, receive, send)


async def _answer(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    if endpoint.gate is not None:
        authorization = find_header(scope["headers"], b"authorization")
        if not endpoint.gate.admits(authorization):
            # RFC 6750 §3.1: an error is named only to those who presented a token.
            error = b"" if authorization is None else b', error="invalid_token"'
            challenge = (b"www-authenticate", b'Bearer realm="perf_middleware"' + error)
            await send_problem(scope, send, 401, "A bearer token is needed.", (challenge,))
            return
    if scope["method"] not in endpoint.methods:
        allow = (b"allow", ", ".join(endpoint.methods).encode())
        await send_problem(scope, send, 405, "This method is not allowed here.", (allow,))
        return
    await endpoint.answer(scope, receive, send)


def json_answer(picture: Callable[[], Awaitable[object]]) -> ASGIApp:
    """An answer that is what `picture()` gives, made anew for each request."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        import orjson

        told = await picture()
        option = orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2
        try:
            body = orjson.dumps(told, option=option, default=str)
        except TypeError:  # an error that is told may repeat what a client sent: "\ud800"
            body = orjson.dumps(_readable(told), option=option, default=str)
        await send_response(
            scope, send, status=200, body=body, content_type=JSON, headers=(NO_STORE,)
        )

    return answer


def _readable(told: Any) -> Any:
    """The same without lone surrogates, which no UTF-8 may hold."""
    match told:
        case str():
            return told.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_readable(name): _readable(value) for name, value in told.items()}
        case list() | tuple():
            return [_readable(each) for each in told]
        case _:
            return told

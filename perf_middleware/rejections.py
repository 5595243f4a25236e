"""A request that is refused in the app's own code is answered as a refusal, and not with 500.

    Starlette, FastAPI   the app's own table of error handlers: nothing in the way of a request
    other apps           a layer right around the app, where a database is configured
    user's middlewares   the same layer around them: what they raise passes no error handler

What has a layer of its own goes past: DeadlineExceededError.  So does an error after the head of a
response: the server cuts it off, so that nobody takes it for complete.
Sources: RFC 9457 (problem+json), RFC 9110 §10.2.3 (Retry-After).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import Around
from perf_middleware.database.holding.runtime.refusals import NoConnectionError, NoDatabaseError
from perf_middleware.errors import (
    CommitOutcomeUnknownError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DeadlineExceededError,
    PerfMiddlewareError,
    RequestRejectedError,
)
from perf_middleware.problem import NO_STORE, PROBLEM, send_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

BUSY: Final = "The database is busy."
AWAY: Final = "The database does not answer."
UNKNOWN: Final = (
    "The database was lost while it committed: what was to be written may have been written, "
    "or not."
)
REFUSED: Final = "The request was refused."
SENTENCES: Final[tuple[tuple[type[RequestRejectedError], str], ...]] = (
    (DatabaseBusyError, BUSY),
    (DatabaseUnavailableError, AWAY),
    (CommitOutcomeUnknownError, UNKNOWN),
)


class RejectionLayer(Around):
    """Answers a RequestRejectedError that the app lets pass with its status."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    # A coroutine function: by that servers and Starlette know an app of ASGI 3.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self.below(scope, receive, send)
        has_begun = False

        def noting(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
            return send(message)

        try:
            return await self.below(scope, receive, noting)
        except RequestRejectedError as error:
            if has_begun or isinstance(error, DeadlineExceededError):
                raise
            status, detail, headers = _told(error)
            title = _title(status)
            await send_problem(scope, send, status, detail, headers, title=title)


def with_rejections(handlers: Mapping[Any, Any]) -> dict[Any, Any]:
    """The error handlers of a Starlette app, and one for these errors where it has none of its own.

    An app that answers HTTPException in its own way does so for a database that is busy as well.
    """
    if RequestRejectedError in handlers or PerfMiddlewareError in handlers:
        return dict(handlers)
    # Starlette looks from an error's own class upwards, and takes the first entry that there is:
    # where that is None the error goes on, to the layer that stands around all handlers.
    ours: dict[Any, Any] = {RequestRejectedError: answer_rejection, DeadlineExceededError: None}
    from starlette.exceptions import HTTPException

    own = handlers.get(HTTPException)
    if own is not None and not getattr(own, "__module__", "").startswith("fastapi."):
        ours[NoConnectionError] = ours[NoDatabaseError] = own
    return {**ours, **handlers}


async def answer_rejection(_request: Request, error: Exception) -> Response:
    """The answer, as Starlette wants it of an error handler."""
    import orjson
    from starlette.responses import Response

    assert isinstance(error, RequestRejectedError)  # noqa: S101 - it is registered for that alone
    status, detail, headers = _told(error)
    told = {"status": status, "title": _title(status), "detail": detail}
    response = Response(orjson.dumps(told), status, media_type=PROBLEM.decode())
    response.raw_headers += [NO_STORE, *headers]
    return response


def _told(error: RequestRejectedError) -> tuple[int, str, list[tuple[bytes, bytes]]]:
    """Status, a sentence that tells clients no more than they need, and Retry-After."""
    told = (t for kind, t in SENTENCES if isinstance(error, kind))
    detail = next(told, REFUSED)
    if error.retry_after_s is None:
        return error.status, detail, []
    return error.status, detail, [(b"retry-after", b"%d" % error.retry_after_s)]


def _title(status: int) -> str | None:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return None

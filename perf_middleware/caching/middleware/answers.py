"""Answers from the store: whole, without body, not modified, in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from perf_middleware.caching.fields import hashable
from perf_middleware.caching.partial import (
    Parts,
    Unsatisfiable,
    Whole,
    decide_range,
    partial_content,
    range_not_satisfiable,
)
from perf_middleware.caching.syntax.dates import parse_http_date
from perf_middleware.caching.validation import is_not_modified
from perf_middleware.coded_forms import FORMS, WANTED
from perf_middleware.coding_choice import CHOSEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import Message, Scope, Send
    from perf_middleware.caching.forms import CodedForms
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.stored import StoredResponse

Fields: TypeAlias = "Sequence[tuple[bytes, bytes]]"
HELD_MAX: Final = 16
FOR_CLIENTS: Final = frozenset({b"cache-control", b"expires", b"pragma"})
"""What a rule's `tell_clients` takes the place of."""


class HeldBack:
    """Interim answers (1xx) of a call whose own answer may turn out not to be the client's."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def hold(self, message: Message) -> None:
        if len(self._messages) < HELD_MAX:
            self._messages.append(message)

    async def before(self, message: Message, request: CacheRequest) -> None:
        """Send them all, then `message`."""
        for interim in self._messages:
            await request.send(interim)
        await request.send(message)


async def answer(
    cache: ResponseCache, request: CacheRequest, stored: StoredResponse, tail: Fields
) -> int:
    """The stored response as the client asked for it: its conditions, its ranges, its method.

    How many bytes of a body were sent.
    """
    asked = request.rewritten_from or request
    if asked.is_for_one_client:
        wall_s = int(cache.wall_s())
        if is_not_modified(stored, asked.lines, now_s=wall_s):
            await send_not_modified(request.send, stored, tail)
            return 0
        wanted = asked.lines.get(b"range", [])
        if len(wanted) == 1 and stored.status == 200 and not asked.is_head:
            sent_bytes = await _sent_in_parts(request, stored, tail, wanted[0], wall_s=wall_s)
            if sent_bytes is not None:
                return sent_bytes
    head = asked.is_head
    tell_choice(cache, asked.scope, stored)
    forms = None if head else forms_for(cache, asked.scope, stored)
    await send_whole(request.send, stored, tail, head=head, forms=forms)
    return 0 if head else len(stored.body)


async def _sent_in_parts(
    request: CacheRequest, stored: StoredResponse, tail: Fields, wanted: bytes, *, wall_s: int
) -> int | None:
    """Send what the client wants of the body, or 416; None where it is to have the whole.

    How many bytes of bodies were sent.  Source: RFC 9110 §14.2.
    """
    fields = dict(stored.headers)
    if_range = (request.rewritten_from or request).lines.get(b"if-range", (None,))
    modified = stored.last_modified
    date = fields.get(b"date")
    verdict = decide_range(
        wanted,
        body_bytes=len(stored.body),
        if_range=if_range[0],
        etag=stored.etag,
        last_modified=modified,
        last_modified_s=None if modified is None else parse_http_date(modified, now_s=wall_s),
        date_s=None if date is None else parse_http_date(date, now_s=wall_s),
        coded=b"content-encoding" in fields,
    )
    match verdict:
        case Whole():
            return None
        case Parts(parts):
            status = 206
            headers, pieces = partial_content(stored.headers, stored.body, parts)
        case Unsatisfiable():
            status = 416
            headers = range_not_satisfiable(stored.headers, body_bytes=len(stored.body))
            pieces = []
        case _:
            assert_never(verdict)
    await request.send(
        {"type": "http.response.start", "status": status, "headers": [*headers, *tail]}
    )
    for piece in pieces:
        await request.send({"type": "http.response.body", "body": piece, "more_body": True})
    await request.send({"type": "http.response.body", "body": b""})
    return sum(map(len, pieces))


def told_head(
    message: Message,
    sent: Sequence[tuple[bytes, bytes]],
    *,
    tell_clients: bytes | None,
    status: tuple[bytes, bytes] | None,
) -> Message:
    """The head of the app's answer as the client gets it: with a rule's Cache-Control, and ours."""
    headers = sent
    if tell_clients is not None:
        headers = [pair for pair in sent if hashable(pair[0].lower()) not in FOR_CLIENTS]
        headers.append((b"cache-control", tell_clients))
    if status is not None:
        headers = [*headers, status]
    elif headers is sent:
        return message
    changed = dict(message)
    changed["headers"] = headers
    return changed


def forms_for(
    cache: ResponseCache, scope: Scope, stored: StoredResponse, key: str = FORMS
) -> CodedForms | None:
    """The coded forms of a stored body, for a layer outside that asks for them."""
    wanted_from = scope.get(WANTED)
    if wanted_from is None or len(stored.body) < wanted_from:
        return None
    forms = scope[key] = cache.forms_of(stored)
    return forms


def tell_choice(cache: ResponseCache, scope: Scope, stored: StoredResponse) -> None:
    """What the endpoint has chosen for its codings, to a layer outside: no router will tell it."""
    if stored.choice is not None:
        scope[CHOSEN] = stored.choice
        if cache.follow is not None:
            cache.follow(scope)  # a layer between may have copied the scope


async def send_whole(
    send: Send,
    stored: StoredResponse,
    tail: Fields,
    *,
    head: bool,
    forms: CodedForms | None = None,
) -> None:
    """The stored response; `tail` are the fields of this answer alone."""
    start = {
        "type": "http.response.start",
        "status": stored.status,
        # A new list each time: a layer outside may edit it in place.
        "headers": [*stored.headers, *tail],
    }
    if stored.choice is not None:
        start[CHOSEN] = stored.choice
    await send(start)
    if head:
        await send({"type": "http.response.body", "body": b""})
    elif forms is None:
        await send({"type": "http.response.body", "body": stored.body})
    else:
        await send({"type": "http.response.body", "body": stored.body, FORMS: forms})


async def send_plain(send: Send, stored: StoredResponse, tail: Fields) -> None:
    """As send_whole, to a GET where no layer outside asked for more: most hits, in fewer steps."""
    await send(
        {
            "type": "http.response.start",
            "status": stored.status,
            # A new list: a layer outside may edit it.
            "headers": [*stored.headers, *tail],
        }
    )
    await send({"type": "http.response.body", "body": stored.body})


async def send_not_modified(send: Send, stored: StoredResponse, tail: Fields) -> None:
    """304 with the validators and cache fields, never a Content-Length (RFC 9110 §15.4.5)."""
    await send(
        {
            "type": "http.response.start",
            "status": 304,
            "headers": [*stored.not_modified_headers, *tail],
        }
    )
    await send({"type": "http.response.body", "body": b""})


async def send_gateway_timeout(send: Send, tail: Fields) -> None:
    """504: the client wanted only what is stored, and there is nothing (RFC 9111 §5.2.1.7)."""
    body = b"nothing stored answers this request, and it asked for nothing else\n"
    await send(
        {
            "type": "http.response.start",
            "status": 504,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
                *tail,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_nothing() -> None:
    """Instead of a send: the client has its answer already."""

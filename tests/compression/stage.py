"""An app below the compression and a client above it, in plain ASGI messages."""

import anyio

from perf_middleware.compression.drivers.available import available_codecs
from perf_middleware.compression.middleware.responses import CompressionMiddleware
from tests.driving import DEADLINE_S, Answer, http_scope

CODECS = {codec.name: codec for codec in available_codecs()}
CODINGS = sorted(CODECS)
JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream")
BODY = b'{"name": "something", "price": 1.5},\n' * 100


def start(*headers, status=200, **more):
    return {"type": "http.response.start", "status": status, "headers": list(headers)} | more


def more(body):
    return {"type": "http.response.body", "body": body, "more_body": True}


def end(body=b""):
    return {"type": "http.response.body", "body": body, "more_body": False}


def says(*messages, then=None):
    """An app that sends these, keeps the scopes that it saw, and raises `then` at the end."""

    async def app(scope, receive, send):
        app.scopes.append(scope)
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    app.scopes = []
    return app


def answers(*headers, body=BODY, status=200, sized=True):
    """An app with one whole answer, as Starlette sends it."""
    length = [(b"content-length", b"%d" % len(body))] if sized else []
    return says(start(*headers, *length, status=status), end(body))


class SentError(Exception):
    """What an app raised, beside what it had sent until then."""

    def __init__(self, answer):
        self.answer = answer


async def asked(app, scope, *, on_send=None):
    """One request to `app`; an exception of it comes as the cause of SentError."""
    messages = []

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        await anyio.lowlevel.checkpoint()
        if on_send is not None:
            on_send(message)
        messages.append(message)

    with anyio.fail_after(DEADLINE_S):
        try:
            await app(scope, receive, send)
        except Exception as exc:
            raise SentError(Answer(messages)) from exc
    return Answer(messages)


def ask(
    app, accepts="gzip", *headers, method="GET", path="/", backend="asyncio", on_send=None, **more
):
    """The answer to one request, whose Accept-Encoding is `accepts`."""
    fields = [("Host", "example.test"), *headers]
    if accepts is not None:
        fields.append(("Accept-Encoding", accepts))
    scope = http_scope(path, method=method, headers=fields, **more)

    async def once():
        return await asked(app, scope, on_send=on_send)

    return anyio.run(once, backend=backend)


def packed(app, **settings):
    return CompressionMiddleware(app, **settings)


def decoded(coding, body):
    """`body`, which must be whole, without its coding."""
    decoder = CODECS[coding].decoder()
    plain = decode_some(decoder, body)
    assert decoder.is_complete, "the coded body is not whole"
    return plain


def decode_some(decoder, piece):
    """All that this piece of a coded body tells."""
    plain = decoder.decode(piece, 1 << 20)
    while not decoder.is_hungry:
        plain += decoder.decode(b"", 1 << 20)
    return plain


def skipped(app):
    """Why answers were not encoded, and how often."""
    return {why: count for why, count in app.compression.figures.skipped.items() if count}

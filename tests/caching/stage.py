"""A cache on a clock of its own, an app below it and clients above, in plain ASGI messages."""

from urllib.parse import unquote

import anyio
import anyio.lowlevel
import pytest

from perf_middleware.caching.middleware import ResponseCacheMiddleware
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.runtime import ResponseCache
from perf_middleware.caching.settings import CacheRule
from perf_middleware.path_patterns import PathPattern
from tests.driving import DEADLINE_S, Answer

START_S = 1_800_000_000
US = 1_000_000
MAX_AGE = (b"cache-control", b"max-age=60")
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Clock:
    """Both clocks of a cache; they move only here."""

    def __init__(self):
        self.us = 5 * US

    def __call__(self):
        return self.us

    def wall_s(self):
        return START_S + self.us / US

    def pass_s(self, seconds):
        self.us += int(seconds * US)


def cached(
    app,
    clock=None,
    *,
    rules=(),
    bytes_max=64 << 20,
    entries_max=50_000,
    draw=lambda: 0.0,
    **options,
):
    """`app` behind a cache; `rules` as rows of settings, `options` as in CacheOptions."""
    clock = clock or Clock()
    options.setdefault("collapse_wait_s", 4 * DEADLINE_S)  # as nobody_waits_in_vain has it
    rows = [CacheRule(**rule) for rule in rules]
    return ResponseCacheMiddleware(
        app,
        ResponseCache(
            clock=clock,
            wall_s=clock.wall_s,
            bytes_max=bytes_max,
            entries_max=entries_max,
            rules=[(PathPattern.of(row.path), row.policy()) for row in rows],
            options=CacheOptions(**options),
            draw=draw,  # 0: no early refresh by chance
        ),
    )


class App:
    """Counts its calls; answers each with the same, once its gate is open."""

    def __init__(self, *headers, status=200, body=b"hello", parts=None, gate=None):
        self.headers = list(headers) or [MAX_AGE]
        self.status = status
        self.parts = [body] if parts is None else parts
        self.gate = gate
        self.scopes = []

    @property
    def calls(self):
        return len(self.scopes)

    def seen(self, name, call=-1):
        """The lines of a request field that a call came with."""
        return [value for key, value in self.scopes[call]["headers"] if key == name]

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if self.gate is not None:
            await self.gate.wait()
        await say(send, *self.headers, status=self.status, parts=self.parts)


async def say(send, *headers, status=200, body=b"hello", parts=None):
    """A whole answer, each of `parts` in a message."""
    await send(start(*headers, status=status))
    parts = [body] if parts is None else parts
    for part in parts[:-1]:
        await send(more(part))
    await send(end(parts[-1]))


def start(*headers, status=200, **more):
    return {"type": "http.response.start", "status": status, "headers": list(headers)} | more


def more(body):
    return {"type": "http.response.body", "body": body, "more_body": True}


def end(body=b""):
    return {"type": "http.response.body", "body": body, "more_body": False}


def scope_of(url="/", *headers, method="GET", host="example.test", **changes):
    path, _, query = url.partition("?")
    fields = [(b"host", host.encode())] if host is not None else []
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": fields + list(headers),
        "client": ("192.0.2.1", 50_000),
        "server": ("example.test", 80),
        "state": {},
        "extensions": {},
    } | changes


class Client:
    """The server's side of one request.

    `leave()`: the client is gone; `receive` tells it, and so does `send` where `send_tells`.
    `on_send(message)` is called before each message counts as sent.
    """

    def __init__(self, url="/", *headers, body=b"", send_tells=False, on_send=None, **scope):
        self.scope = scope_of(url, *headers, **scope)
        self.messages = []
        self.raised = None
        self.done = False
        self.on_send = on_send
        self._send_tells = send_tells
        self._body = body
        self._told = False
        self._gone = None
        self._left = False

    def leave(self):
        self._left = True
        if self._gone is not None:
            self._gone.set()

    async def receive(self):
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self._left:
            self._gone = self._gone or anyio.Event()
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await anyio.lowlevel.checkpoint()
        if self._left and self._send_tells:
            raise OSError("the client is gone")
        if self.on_send is not None:
            self.on_send(message)
        self.messages.append(message)

    async def ask(self, app):
        """The whole request; what the app raises is kept."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            self.raised = exc
        finally:
            self.done = True
        return self

    @property
    def answer(self):
        return Answer([each for each in self.messages if "early" not in each["type"]])

    @property
    def body(self):
        return self.answer.body

    @property
    def verdict(self):
        """What Cache-Status says behind the cache's name."""
        return verdict(self.answer)


async def ask(app, url="/", *headers, **more):
    """One request; its answer."""
    client = Client(url, *headers, **more)
    with anyio.fail_after(DEADLINE_S):
        await client.ask(app)
    if client.raised is not None:
        raise client.raised
    return client.answer


def verdict(answer):
    """`hit; ttl=60` and the like."""
    field = answer.header("cache-status")
    return None if field is None else field.removeprefix("perf_middleware; ")


async def settle(rounds=60):
    """Everybody goes on until they wait for each other."""
    for _ in range(rounds):
        await anyio.lowlevel.checkpoint()


def run(function, backend="asyncio"):
    async def bounded():
        with anyio.fail_after(DEADLINE_S):
            return await function()

    return anyio.run(bounded, backend=backend)


def assert_at_rest(cache):
    """Nothing is under way any more: no call, nobody who waits, nothing half stored."""
    assert not cache.flights.open
    assert cache.flights.waiting == 0
    assert cache.storing_bytes == 0
    assert not cache.refreshing

"""What growth.py measures: the same request with few and with many entries, routes and keys.

Every row has a floor beside it, measured in the same rounds: a dict by the same keys, or the bare
app with as many routes.  Paths and addresses are made for each request, as a server makes them,
and asked for at random: of a hundred thousand entries most are then in no cache of the processor,
whoever keeps them.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from itertools import count, cycle
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Response

from benchmarks import installed_apps
from benchmarks.installed_apps import EVERYTHING, PLENTY, TTL_S
from benchmarks.layers import HEADERS, LARGE_BYTES, OFF, SMALL_BYTES, scopes
from benchmarks.runner import Answer, Case, CheckError, answer_of, on_loop
from perf_middleware import RateLimitMiddleware, Settings, cache_response, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.runner import LoopName
    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

DRAWS: Final = 200_000  # then the same once more: more than any cache of the processor remembers
CACHE_ALONE: Final[dict[str, Any]] = {
    "metrics": {**OFF, "overhead": False}, "runtime": OFF, "dashboard": OFF, "lifespan": OFF,
    "compression": OFF, "memory": OFF,
}  # fmt: skip
BYTES_MAX: Final = 1 << 30
TEMPLATE: Final = scopes("/", HEADERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: its case at each size; `floor` is the row that it stands on."""

    name: str
    cases: tuple[Case, ...]
    floor: str | None = None
    added: bool = False
    """True: what it adds to its floor must be flat; False: the whole request."""
    is_ours: bool = True


def drawn(size: int) -> Callable[[], int]:
    """The next of `size` numbers, at random."""
    draw = random.Random(size)
    return cycle(array("I", (draw.randrange(size) for _ in range(DRAWS)))).__next__


def _at(path: str) -> Scope:
    return {**TEMPLATE(), "path": path, "raw_path": path.encode()}


def _case(
    name: str,
    size: int,
    app: ASGIApp,
    scope: Callable[[], Scope],
    *headers: bytes,
    body: bytes = SMALL_BYTES,
) -> Case:
    return Case(
        name=f"{name}, {size}",
        build=lambda: app,
        scope=scope,
        expected=Answer(status=200, body=body, header_names=frozenset(headers)),
    )


def _filled(app: ASGIApp, asked: Iterable[Scope], loop: LoopName) -> ASGIApp:
    """The app after these requests.  Raises CheckError where it did not answer one."""

    async def fill() -> None:
        for scope in asked:
            status = (await answer_of(app, scope)).status
            if status != 200:
                raise CheckError(f"answered {status} while it was filled")

    on_loop(loop, fill())
    return app


START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(SMALL_BYTES)),
        (b"cache-control", b"max-age=%d" % TTL_S),
    ],
}


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """The least app; what it answers may be stored."""
    await send({**START, "headers": [*START["headers"]]})  # type: ignore[misc]
    # Its own bytes for each answer: what many share would stay near the processor.
    await send({"type": "http.response.body", "body": bytes(bytearray(SMALL_BYTES))})


# --- stored entries -----------------------------------------------------------------------------


class LookUp:
    """A dict by path, and one answer for all: the look-up and nothing else."""

    def __init__(self) -> None:
        self._stored: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in self._stored:
            self._stored[path] = monotonic()
        await raw(scope, receive, send)


class DictOfAnswers:
    """A dict by path with the answers, each sent with an Age: what any cache reads at least."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[float, list[Message]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._stored.get(scope["path"])
        if found is None:
            messages: list[Message] = []

            async def keep(message: Message) -> None:
                messages.append(message)

            await raw(scope, receive, keep)
            found = self._stored[scope["path"]] = monotonic(), messages
        stored_s, (start, body) = found
        age = b"%d" % (monotonic() - stored_s)
        await send({**start, "headers": [*start["headers"], (b"age", age)]})
        await send(body)


def _item(number: int) -> Scope:
    return _at(f"/items/{number}")


def _cache(entries_max: int) -> ASGIApp:
    async def any_app(scope: Scope, receive: Receive, send: Send) -> None:
        await raw(scope, receive, send)

    bounds = {"entries_max": entries_max, "bytes_max": BYTES_MAX}
    return install(any_app, Settings(**CACHE_ALONE, cache=bounds))


def stored_entries(sizes: Sequence[int], loop: LoopName) -> list[Row]:
    """A hit, and a miss that is stored where another has to go."""

    def of(make: Callable[[], ASGIApp]) -> Callable[[int], Case]:
        def case(size: int) -> Case:
            app = _filled(make(), map(_item, range(size)), loop)
            number = drawn(size)
            return _case(make.__name__, size, app, lambda: _item(number()))

        return case

    def hit(size: int) -> Case:
        app = _filled(_cache(2 * size + 1000), map(_item, range(size)), loop)
        number = drawn(size)
        return _case("hit", size, app, lambda: _item(number()), b"age")

    def full(size: int) -> Case:
        app = _filled(_cache(size), map(_item, range(2 * size)), loop)
        number = count(2 * size).__next__
        return _case("full", size, app, lambda: _item(number()))

    floor = "a dict of answers, sent with an Age"
    return [
        Row(name="a dict look-up by path", cases=tuple(map(of(LookUp), sizes)), is_ours=False),
        Row(name=floor, cases=tuple(map(of(DictOfAnswers), sizes)), is_ours=False),
        Row(name="hit", cases=tuple(map(hit, sizes)), floor=floor),
        Row(name="miss, stored, the cache is full", cases=tuple(map(full, sizes))),
    ]


# --- routes -------------------------------------------------------------------------------------


def _with_routes(size: int, *, rule: bool = False) -> FastAPI:
    app = FastAPI()

    def endpoint() -> Any:
        async def answer(item: str) -> Response:
            return Response(SMALL_BYTES, media_type="application/json")

        return cache_response(ttl=TTL_S)(answer) if rule else answer

    for number in range(size):
        app.get(f"/kind{number}/{{item}}")(endpoint())
    return app


def _of_kind(number: int) -> Scope:
    return _at(f"/kind{number}/17")


def routes(sizes: Sequence[int], loop: LoopName) -> list[Row]:
    """Any of the routes, bare and with the layers; FastAPI looks for it one by one."""

    def row(name: str, *headers: bytes, rule: bool = False, **sections: Any) -> Row:
        def case(size: int) -> Case:
            app = _with_routes(size, rule=rule)
            if headers:
                install(app, Settings(lifespan=OFF, **sections))
            number = drawn(size)
            filled = _filled(app, map(_of_kind, range(size)), loop)
            return _case(name, size, filled, lambda: _of_kind(number()), *headers)

        # A hit asks no router: its floor is nothing.
        floor = floor_name if headers and not rule else None
        cases = tuple(map(case, sizes))
        return Row(
            name=name, cases=cases, floor=floor, added=floor is not None, is_ours=bool(headers)
        )

    floor_name = "bare app"
    return [
        row(floor_name),
        row("defaults, miss", b"cache-status"),
        row("everything, miss", b"ratelimit", **EVERYTHING),
        row("everything, hit", b"age", rule=True, **EVERYTHING),
    ]


# --- keys of a rate limit -----------------------------------------------------------------------


class DictOfCounts:
    """A dict that counts by address: what any limiter needs at least."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"][0]
        self._counts[client] = self._counts.get(client, 0) + 1
        await raw(scope, receive, send)


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _from(number: int) -> Scope:
    scope = {**TEMPLATE(), "client": (address(number), 50_000)}
    scope["headers"].append((b"x-api-key", b"key-%d" % number))
    return scope


def limiter_keys(sizes: Sequence[int], loop: LoopName) -> list[Row]:
    """One quota, whose clients are that many, in memory."""

    def row(name: str, make: Callable[[int], ASGIApp], *headers: bytes, floor: str | None) -> Row:
        def case(size: int) -> Case:
            app = _filled(make(size), map(_from, range(size)), loop)
            number = drawn(size)
            return _case(name, size, app, lambda: _from(number()), *headers)

        cases = tuple(map(case, sizes))
        return Row(name=name, cases=cases, floor=floor, is_ours=floor is not None)

    def limited(size: int) -> ASGIApp:
        return RateLimitMiddleware(raw, quotas=[PLENTY], entries_max=2 * size + 1000)

    def by_header(size: int) -> ASGIApp:
        # No address is read: what is left is the store's own.
        quota = {"limit": PLENTY, "key": "header:x-api-key"}
        return RateLimitMiddleware(raw, quotas=[quota], entries_max=2 * size + 1000)

    def busy(size: int) -> ASGIApp:
        # Buckets that are full again after an hour: none of them is let go of.
        quota = {"limit": "1000000/hour", "key": "header:x-api-key"}
        return RateLimitMiddleware(raw, quotas=[quota], entries_max=2 * size + 1000)

    floor = "a dict that counts by address"
    told = (b"ratelimit", b"ratelimit-policy")
    return [
        row(floor, lambda _: DictOfCounts(), floor=None),
        row("a quota of each address", limited, *told, floor=floor),
        row("a quota of each API key", by_header, *told, floor=floor),
        row("the same, an hour long", busy, *told, floor=floor),
    ]


# --- whole requests -----------------------------------------------------------------------------


def whole_requests(sizes: Sequence[int], loop: LoopName) -> list[Row]:
    """FastAPI's 20 kB route with everything on: what grows, as a share of all that a request costs.

    A hit among so many entries, and a miss of one of so many clients.
    """

    def page(number: int) -> Scope:
        return _at(f"/large/{number}")

    def row(name: str, make: Callable[[int], FastAPI], asked: Any, *headers: bytes) -> Row:
        def case(size: int) -> Case:
            app = make(size)
            number = drawn(size)
            filled = _filled(app, map(asked, range(size)), loop) if headers else app
            return _case(name, size, filled, lambda: asked(number()), *headers, body=LARGE_BYTES)

        return Row(name=name, cases=tuple(map(case, sizes)), is_ours=bool(headers))

    def hit(size: int) -> FastAPI:
        bounds = {"entries_max": 2 * size + 1000, "bytes_max": BYTES_MAX << 3}
        return installed_apps.hit(**{**EVERYTHING, "lifespan": OFF, "cache": bounds})

    def miss(size: int) -> FastAPI:
        quotas = {"quotas": [PLENTY], "entries_max": 2 * size + 1000}
        return installed_apps.with_settings(**{**EVERYTHING, "lifespan": OFF, "ratelimit": quotas})

    def by_client(number: int) -> Scope:
        return {**_from(number), **page(number % 7)}

    return [
        row("bare app", lambda _: installed_apps.bare(), page),
        row("everything, hit", hit, page, b"age"),
        row("everything, miss, of so many addresses", miss, by_client, b"ratelimit"),
    ]

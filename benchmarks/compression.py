"""What a coded answer costs, whole middlewares against each other, and what passing costs.

    python -m benchmarks.compression       # starlette-compress and brotli-asgi are in bench-peers

Two tables of a coding: the 20 kB JSON route, a raw ASGI app that makes its body for each answer.
In the first it is the same one again, which our row encodes twice and then remembers; in the second
one number in it is another each time, so that nobody can.  Below each table stands how long the
answer got: a row is better only where it is not longer.  Second part: answers that no coding is
for, each beside the same raw app alone.  Codecs alone: benchmarks/codecs.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Final

from benchmarks.codecs import json_body
from benchmarks.runner import (
    Answer,
    Case,
    CheckError,
    Plan,
    Report,
    answer_of,
    measure,
    plan_arguments,
    plan_of,
    table,
    write_json,
)
from perf_middleware import CompressionMiddleware
from perf_middleware.compression.drivers.available import available_codecs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send

LARGE: Final = json_body(20_000)
SMALL: Final = b'{"id":1,"name":"a short answer"}'
_MIDDLE: Final = LARGE.index(b'"', len(LARGE) // 2) + 1  # within a text
_BEFORE, _BEHIND = LARGE[:_MIDDLE], LARGE[_MIDDLE + 12 :]
BROWSER: Final = "gzip, deflate, br, zstd"
OURS: Final = "CompressionMiddleware"
FORGETFUL: Final = "CompressionMiddleware, repeated_bytes_max=0"
UNCHANGED: Final = "unchanged"
CHANGING: Final = "another in every answer"
NUMBER: Final = b"%012d"
BARE: Final = "no middleware"
CODECS = {codec.name: codec for codec in available_codecs()}

Wrap = Callable[["ASGIApp"], "ASGIApp"]
Bodies = Callable[[int], bytes]
"""The body of the so manieth answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """One table, and how many bytes each of its answers got, where they were encoded."""

    report: Report
    lengths: dict[str, int] = field(default_factory=dict)


def sends(body: bytes, content_type: bytes = b"application/json", *, sized: bool = True) -> ASGIApp:
    """A raw app with one body."""
    headers = head_of(body, content_type, sized=sized)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Anew for each answer, as apps do: some peers write into the lists that they get.
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    return app


def makes(bodies: Bodies) -> ASGIApp:
    """A raw app that makes each of its bodies, all of one length, as those do that serialise."""
    headers = head_of(bodies(0))
    numbers = count()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        await send({"type": "http.response.body", "body": bodies(next(numbers))})

    return app


def head_of(
    body: bytes, content_type: bytes = b"application/json", *, sized: bool = True
) -> list[tuple[bytes, bytes]]:
    length = [(b"content-length", b"%d" % len(body))] if sized else []
    return [(b"content-type", content_type), *length]


def unchanged(_: int) -> bytes:
    """The same bytes in another object, whose hash nobody has asked for as yet."""
    return bytes(memoryview(LARGE))


def changing(number: int) -> bytes:
    """One that differs in its middle alone, so that it looks like the one before."""
    return _BEFORE + NUMBER % number + _BEHIND


def scope_of(accepts: str | None) -> Scope:
    headers = [
        (b"host", b"example.org"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (b"accept", b"application/json"),
        (b"accept-language", b"en,de;q=0.7"),
        (b"cookie", b"session=4f2a"),
        (b"sec-fetch-site", b"same-origin"),
    ]
    if accepts is not None:
        headers.append((b"accept-encoding", accepts.encode()))
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": "GET", "scheme": "https", "path": "/items", "raw_path": b"/items",
        "query_string": b"", "root_path": "", "headers": headers,
        "client": ("192.0.2.1", 50_000), "server": ("example.org", 443),
    }  # fmt: skip


def peers() -> dict[str, dict[str, Wrap]]:
    """By coding: the other middlewares that are installed, at their defaults."""
    from starlette.middleware.gzip import GZipMiddleware

    found: dict[str, dict[str, Wrap]] = {"gzip": {"starlette GZipMiddleware": GZipMiddleware}}
    if find_spec("brotli_asgi") is not None:
        from brotli_asgi import BrotliMiddleware

        found["br"] = {"brotli-asgi": BrotliMiddleware}
    if find_spec("starlette_compress") is not None:
        from starlette_compress import CompressMiddleware

        for coding in ("gzip", "br", "zstd"):
            found.setdefault(coding, {})["starlette-compress"] = CompressMiddleware
    return found


def ours(app: ASGIApp) -> ASGIApp:
    return CompressionMiddleware(app)


def forgetful(app: ASGIApp) -> ASGIApp:
    return CompressionMiddleware(app, repeated_bytes_max=0)


def case(
    name: str, wrap: Wrap | None, make: Callable[[], ASGIApp], *, accepts: str | None, body: bytes
) -> tuple[Case, int]:
    """A row and how long its first answer is, whose body is `body`.

    Raises CheckError where decoding gives another one.
    """

    def build() -> ASGIApp:
        return make() if wrap is None else wrap(make())

    scope = partial(scope_of, accepts)
    answer = asyncio.run(answer_of(build(), scope()))
    if answer.body != body:
        decoder = CODECS[accepts or ""].decoder()
        decoded = bytearray(decoder.decode(answer.body, len(body) + 1))
        while not decoder.is_hungry and len(decoded) <= len(body):
            decoded += decoder.decode(b"", len(body) + 1)
        if decoded != body or not decoder.is_complete:
            raise CheckError(f"{name}: another body")
    expected = Answer(status=200, body=answer.body)
    # gzip by others has the time in its head.
    row = Case(name=name, build=build, scope=scope, expected=expected, has_one_body=False)
    return row, len(answer.body)


def encoded(plan: Plan) -> list[Coded]:
    """Two reports for each coding, with the lengths of their answers."""
    found = []
    for coding, others in peers().items():
        ways: dict[str, Wrap | None] = {BARE: None, **others, OURS: ours}
        found.append(_encoded(coding, UNCHANGED, unchanged, ways, plan))
        found.append(_encoded(coding, CHANGING, changing, ways | {FORGETFUL: forgetful}, plan))
    return found


def _encoded(
    coding: str, kind: str, bodies: Bodies, ways: dict[str, Wrap | None], plan: Plan
) -> Coded:
    rows, lengths, make = [], {}, partial(makes, bodies)
    for name, wrap in ways.items():
        row, lengths[name] = case(name, wrap, make, accepts=coding, body=bodies(0))
        rows.append(row)
    title = f"20 kB of JSON as {coding}, {kind}"
    report = measure(title, rows, replace(plan, requests=10), baseline=BARE)
    return Coded(report=report, lengths=lengths)


def passed(plan: Plan) -> list[Report]:
    """What an answer pays that is not encoded."""
    situations: Sequence[tuple[str, ASGIApp, str | None, bytes]] = (
        ("a short answer", sends(SMALL), BROWSER, SMALL),
        ("a short answer without Content-Length", sends(SMALL, sized=False), BROWSER, SMALL),
        ("an image", sends(LARGE, b"image/png"), BROWSER, LARGE),
        ("a long answer, no coding accepted", sends(LARGE), None, LARGE),
    )
    ways: dict[str, Wrap | None] = {BARE: None, OURS: ours}
    for others in peers().values():
        ways |= others
    return [
        measure(
            title,
            [case(name, wrap, partial(_same, app), accepts=accepts, body=body)[0]
             for name, wrap in ways.items()
             # One whose table of types is another encodes what ours takes for packed.
             if not (title == "an image" and name == "brotli-asgi")],
            plan,
            baseline=BARE,
        )
        for title, app, accepts, body in situations
    ]  # fmt: skip


def _same(app: ASGIApp) -> ASGIApp:
    return app


def run(plan: Plan) -> list[Coded]:
    """Every table."""
    return [*encoded(plan), *(Coded(report=report) for report in passed(plan))]


def main() -> None:
    """Print every table."""
    defaults = Plan(rounds=200, requests=200, seconds_max=20)
    parser = plan_arguments(__doc__, defaults=defaults)
    options = parser.parse_args()
    found = run(plan_of(options))
    for one in found:
        print(table(one.report))
        print("\n".join(f"  {name}: {size:,} bytes" for name, size in one.lengths.items()), "\n")
    write_json(options.json, found)


if __name__ == "__main__":
    main()

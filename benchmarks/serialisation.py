"""What JSON costs: by FastAPI itself, by JSONResponse, by OrjsonResponse, and as a stream.

Three tables, each of whole requests in process:

    rows     100 dicts of plain values, 20 kB: what an endpoint reads from a database
    models   100 pydantic models, 20 kB
    stream   10,000 small dicts, 1 MB: at once, and piece by piece

Of the first two, each row is the same FastAPI app that answers the same in another way.  Figures
are CPU time of the process, threads included (see runner.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator  # noqa: TC003 - FastAPI reads the annotations
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import JSONResponse, StreamingResponse

from benchmarks.layers import HEADERS, SMALL
from benchmarks.runner import (
    Answer,
    Case,
    Plan,
    Report,
    measure,
    plan_arguments,
    plan_of,
    table,
    write_json,
)
from perf_middleware import OrjsonResponse, StreamingJSONResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from perf_middleware.asgi import ASGIApp, Scope

PLAIN = "FastAPI, return type"
AT_ONCE = "OrjsonResponse of the list"
ROWS = 100
ITEMS = 10_000
ITEM = {"id": 17, "name": "a rather ordinary item", "price": 12.5, "tags": ["new", "blue"], "n": 4}
PIECES = (4_096, 16_384, 65_536, 262_144)


class Item(BaseModel):
    """The same as SMALL, described."""

    id: int
    name: str
    price: float
    tags: list[str]
    stock: dict[str, int]
    description: str


def scope() -> Scope:
    """One GET."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": list(HEADERS),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8_000),
        "state": {},
    }


def endpoints(content: list[Any], described: Any) -> dict[str, Callable[[FastAPI], None]]:
    """What adds `GET /` to an app, by what it is called in the table."""

    def typed(app: FastAPI) -> None:
        @app.get("/", response_model=list[described])
        async def read() -> Any:
            return content

    def typed_by_orjson(app: FastAPI) -> None:
        @app.get("/", response_model=list[described], response_class=OrjsonResponse)
        async def read() -> Any:
            return content

    def untyped(app: FastAPI) -> None:
        @app.get("/")
        async def read():  # type: ignore[no-untyped-def]
            return content

    def untyped_by_orjson(app: FastAPI) -> None:
        @app.get("/", response_class=OrjsonResponse)
        async def read():  # type: ignore[no-untyped-def]
            return content

    def returned_by_json(app: FastAPI) -> None:
        @app.get("/")
        async def read() -> JSONResponse:
            if described is Item:
                return JSONResponse([item.model_dump(mode="json") for item in content])
            return JSONResponse(content)

    def returned_by_orjson(app: FastAPI) -> None:
        @app.get("/")
        async def read() -> OrjsonResponse:
            return OrjsonResponse(content)

    return {
        PLAIN: typed,
        "the same, response_class=OrjsonResponse": typed_by_orjson,
        "no return type": untyped,
        "no return type, response_class=OrjsonResponse": untyped_by_orjson,
        "return JSONResponse(...)": returned_by_json,
        "return OrjsonResponse(...)": returned_by_orjson,
    }


def app_with(add: Callable[[FastAPI], None]) -> ASGIApp:
    app = FastAPI()
    add(app)
    return app


def whole(title: str, content: list[Any], described: Any, plan: Plan) -> Report:
    """The table of one kind of content."""
    expected = Answer(status=200, body=orjson.dumps([SMALL] * ROWS))
    cases = [
        Case(name=name, build=lambda add=add: app_with(add), scope=scope, expected=expected)  # type: ignore[misc]
        for name, add in endpoints(content, described).items()
    ]
    return measure(title, cases, plan, baseline=PLAIN)


def streamed(plan: Plan) -> Report:
    """The table of ways to send many items."""

    async def asynchronously() -> AsyncIterator[Any]:
        for _ in range(ITEMS):
            yield ITEM

    def synchronously() -> Iterator[Any]:
        for _ in range(ITEMS):
            yield ITEM

    async def by_hand() -> AsyncIterator[bytes]:
        opening = b"["
        for _ in range(ITEMS):
            yield opening + orjson.dumps(ITEM)
            opening = b","
        yield b"]"

    ways: dict[str, Callable[[], Response]] = {
        AT_ONCE: lambda: OrjsonResponse([ITEM] * ITEMS),
        "JSONResponse of the list": lambda: JSONResponse([ITEM] * ITEMS),
        "StreamingResponse, orjson item by item": lambda: StreamingResponse(
            by_hand(), media_type="application/json"
        ),
    }
    for piece_bytes in PIECES:
        ways[f"async items in pieces of {piece_bytes >> 10} KiB"] = lambda size=piece_bytes: (  # type: ignore[misc]
            StreamingJSONResponse(asynchronously(), piece_bytes=size)
        )
    for piece_bytes in PIECES:
        ways[f"items from a thread, {piece_bytes >> 10} KiB"] = lambda size=piece_bytes: (  # type: ignore[misc]
            StreamingJSONResponse(synchronously(), piece_bytes=size)
        )
    expected = Answer(status=200, body=orjson.dumps([ITEM] * ITEMS))
    cases = [
        Case(name=name, build=lambda way=way: answering(way), scope=scope, expected=expected)  # type: ignore[misc]
        for name, way in ways.items()
    ]
    return measure(f"{ITEMS:,} items", cases, plan, baseline=AT_ONCE)


def answering(way: Callable[[], Response]) -> ASGIApp:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await way()(scope, receive, send)

    return app


def main() -> None:
    parser = plan_arguments(__doc__, defaults=Plan(rounds=100, requests=20, seconds_max=30))
    options = parser.parse_args()
    plan = plan_of(options)
    few = Plan(
        rounds=max(1, plan.rounds // 4), requests=1, seconds_max=plan.seconds_max,
        seed=plan.seed, loop=plan.loop,
    )  # fmt: skip
    reports = [
        whole("rows: 100 dicts", [SMALL] * ROWS, dict[str, Any], plan),
        whole("models: 100 of pydantic", [Item(**SMALL) for _ in range(ROWS)], Item, plan),
        streamed(few),
    ]
    for report in reports:
        print(f"\n{table(report)}")
    write_json(options.json, reports)


if __name__ == "__main__":
    main()

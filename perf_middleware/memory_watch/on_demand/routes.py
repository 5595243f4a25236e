"""The operators' endpoints of the memory watch; who may call them is decided before.

    GET  /memory                        what is known now
    GET  /memory/objects?top=50         object counts by type
    GET  /memory/compare?a=..&b=..      what changed between two snapshots
    POST /memory/snapshot[?trace_s=5]   keep a picture of this moment
    POST /memory/collect                collect garbage
    POST /memory/trace?seconds=5        trace allocations (&frames=4): slows the app down meanwhile

Whatever looks at objects runs in a thread of its own, one at a time: a second one is told 409.
A trace ends when its client leaves: nobody would read it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perf_middleware.asgi import send_response
from perf_middleware.errors import TracingBusyError
from perf_middleware.memory_watch.on_demand.runtime import UnknownPictureError
from perf_middleware.memory_watch.tracing.runtime import FRAMES_MAX
from perf_middleware.operator_routes import (
    CHANGING,
    READING,
    OperatorRoute,
    Parameters,
    WrongParameterError,
)
from perf_middleware.problem import NO_STORE, send_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from perf_middleware.asgi import Receive, Scope, Send
    from perf_middleware.memory_watch.on_demand.runtime import MemoryInspection

    Answer: TypeAlias = Callable[["Parameters", Receive], Awaitable[object]]

R = TypeVar("R")

JSON: Final = b"application/json"
TRACE_S_MIN, TRACE_S_MAX, TRACE_S = 1.0, 30.0, 5.0
TOP_MAX: Final = 200


class _ClientLeftError(Exception):
    """Nobody is there for the answer any more."""


def memory_routes(
    inspection: MemoryInspection, status: Callable[[], object] | None = None
) -> tuple[OperatorRoute, ...]:
    """The endpoints; `status()` is what GET /memory tells, the inspection's own without it."""
    trace_s = f"a number of seconds from {TRACE_S_MIN:g} to {TRACE_S_MAX:g}"
    top = f"a whole number from 1 to {TOP_MAX}"
    frames = f"a whole number from 1 to {FRAMES_MAX}"
    snapshot_id = "the id of a snapshot"

    async def tell(given: Parameters, receive: Receive) -> object:
        return (inspection.status if status is None else status)()

    async def count(given: Parameters, receive: Receive) -> object:
        most = given.whole("top", 50, TOP_MAX)
        counts = await _in_thread(inspection.object_counts)
        return {"total": counts.total, "types": counts.top(most)}

    async def compare(given: Parameters, receive: Receive) -> object:
        a, b, most = given.text("a"), given.text("b"), given.whole("top", 20, TOP_MAX)
        return await _in_thread(partial(inspection.compare, a, b, top=most))

    async def snapshot(given: Parameters, receive: Receive) -> object:
        seconds = given.number("trace_s", None, TRACE_S_MIN, TRACE_S_MAX)
        trace = None
        if seconds is not None:
            trace = await _while_there(receive, partial(inspection.trace_async, seconds))
        return {"id": await _in_thread(partial(inspection.snapshot, trace=trace))}

    async def collect(given: Parameters, receive: Receive) -> object:
        return await _in_thread(inspection.collect)

    async def trace(given: Parameters, receive: Receive) -> object:
        seconds = given.number("seconds", TRACE_S, TRACE_S_MIN, TRACE_S_MAX) or TRACE_S
        frames = given.whole("frames", 0, FRAMES_MAX) or None
        return await _while_there(receive, partial(inspection.trace_async, seconds, frames=frames))

    def route(path: str, methods: tuple[str, ...], answer: Answer, **allowed: str) -> OperatorRoute:
        return OperatorRoute(path, partial(_answer, answer, allowed), methods)

    return (
        route("/memory", READING, tell),
        route("/memory/objects", READING, count, top=top),
        route("/memory/compare", READING, compare, a=snapshot_id, b=snapshot_id, top=top),
        route("/memory/snapshot", CHANGING, snapshot, trace_s=trace_s),
        route("/memory/collect", CHANGING, collect),
        route("/memory/trace", CHANGING, trace, seconds=trace_s, frames=frames),
    )


async def _answer(
    answer: Answer, allowed: Mapping[str, str], scope: Scope, receive: Receive, send: Send
) -> None:
    import orjson

    try:
        told = await answer(Parameters(scope.get("query_string", b""), allowed), receive)
    except WrongParameterError as error:
        return await send_problem(scope, send, 400, f"{error}.")
    except UnknownPictureError as error:
        return await send_problem(scope, send, 404, f"{error}.")
    except TracingBusyError as error:
        return await send_problem(scope, send, 409, f"{error}.")
    except _ClientLeftError:
        return None
    body = orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2, default=str)
    await send_response(scope, send, status=200, body=body, content_type=JSON, headers=(NO_STORE,))
    return None


async def _while_there(receive: Receive, work: Callable[[], Awaitable[R]]) -> R:
    """What `work()` gives; it is cancelled when the client leaves.

    Raises _ClientLeftError then, and what `work` raises.
    """
    import anyio

    answers: list[R] = []
    errors: list[Exception] = []  # kept out of the group, which would wrap them

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        try:
            answers.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
        tasks.cancel_scope.cancel()
    if errors:
        raise errors[0]
    if not answers:
        raise _ClientLeftError
    return answers[0]


async def _in_thread(look: Callable[[], Any]) -> Any:
    import anyio
    import anyio.to_thread

    # A thread of its own: those of the app's sync endpoints may all be taken, and it is theirs.
    return await anyio.to_thread.run_sync(look, limiter=anyio.CapacityLimiter(1))

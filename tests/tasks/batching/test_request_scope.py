"""Within one request a key is asked once; outside of one, each time."""

from contextvars import ContextVar

import anyio
from fastapi import BackgroundTasks, FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from perf_middleware.tasks.batching import BatchScopeMiddleware, batch_scope, batched
from perf_middleware.tasks.batching.runtime.scopes import current_scope
from tests.tasks.any_loop import at_once, on_each_loop, until


def remembering(**options):
    calls = []

    @batched(wait_s=0, cache="request", **options)
    async def load(keys):
        calls.append(keys)
        return {key: key * 10 for key in keys if key >= 0}

    return load, calls


@on_each_loop
async def test_a_request_asks_for_a_key_once():
    load, calls = remembering()
    with batch_scope():
        assert await load(1) == 10
        assert await at_once(load, 1, 2) == [10, 20]
        assert await load.many([2, 3, 1]) == [20, 30, 10]
    assert calls == [[1], [2], [3]]
    assert load.reading().counts.remembered == 3
    with batch_scope():
        assert await load(1) == 10
    assert calls[3:] == [[1]]


@on_each_loop
async def test_outside_of_a_request_nothing_is_remembered():
    load, calls = remembering()
    load.prime(1, 11)
    load.clear()
    assert [await load(1), await load(1)] == [10, 10]
    assert calls == [[1], [1]]


@on_each_loop
async def test_who_asks_while_the_call_runs_waits_for_that():
    calls = []
    gate = anyio.Event()

    @batched(wait_s=0, cache="request")
    async def load(keys):
        calls.append(keys)
        await gate.wait()
        return keys

    with batch_scope():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 1)
            await until(lambda: calls == [[1]])
            tasks.start_soon(load, 1)
            await until(lambda: load.reading().waiting == 2)
            gate.set()
    assert calls == [[1]]


@on_each_loop
async def test_a_failure_is_not_remembered():
    load, calls = remembering()
    with batch_scope():
        for _ in range(2):
            assert (await load.many([-1], return_failures=True))[0].error.key == "-1"
    assert calls == [[-1], [-1]]


@on_each_loop
async def test_a_call_that_was_given_up_is_asked_anew():
    calls = []

    @batched(wait_s=0, cache="request")
    async def load(keys):
        calls.append(keys)
        if len(calls) == 1:
            await anyio.sleep_forever()
        return keys

    with batch_scope():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, 1)
            await until(lambda: calls == [[1]])
            tasks.cancel_scope.cancel()
        assert await load(1) == 1
    assert calls == [[1], [1]]


@on_each_loop
async def test_a_key_that_was_taken_out_of_its_batch_is_asked_anew():
    calls = []

    @batched(wait_s=60, size_max=3, cache="request")
    async def load(keys):
        calls.append(keys)
        return keys

    with batch_scope():
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as goes:
                goes.start_soon(load, 1)
                await until(lambda: load.reading().waiting == 1)
                tasks.start_soon(load, 2)
                await until(lambda: load.reading().waiting == 2)
                goes.cancel_scope.cancel()
            assert await at_once(load, 1, 3) == [1, 3]
    assert calls == [[2, 1, 3]]


@on_each_loop
async def test_prime_gives_a_value_and_clear_takes_it_back():
    load, calls = remembering()
    with batch_scope():
        load.prime(1, 11)
        load.prime(2, 22)
        assert await load.many([1, 2]) == [11, 22]
        load.clear(1, 3)
        assert await load.many([1, 2]) == [10, 22]
        load.clear()
        assert await load.many([1, 2]) == [10, 20]
    assert calls == [[1], [1, 2]]


@on_each_loop
async def test_no_more_is_remembered_than_the_bound_says():
    load, calls = remembering(remembered_max=1)
    with batch_scope():
        for key in (1, 2, 1, 2):
            await load(key)
        load.prime(3, 33)
        assert await load(3) == 30
    assert calls == [[1], [2], [2], [3]]


@on_each_loop
async def test_each_object_has_values_of_its_own():
    class Shop:
        def __init__(self, factor):
            self.factor = factor

        @batched(wait_s=0, cache="request")
        async def load(self, keys):
            return [key * self.factor for key in keys]

    one, two = Shop(10), Shop(100)
    with batch_scope():
        assert [await one.load(1), await two.load(1), await one.load(1)] == [10, 100, 10]
        one.load.prime(1, 5)
        assert [await one.load(1), await two.load(1)] == [5, 100]


def test_a_request_through_the_middleware_is_a_scope_and_a_websocket_is_none():
    load, calls = remembering()
    app = FastAPI()
    app.add_middleware(BatchScopeMiddleware)

    @app.get("/twice")
    async def twice(background: BackgroundTasks):
        background.add_task(load, 1)
        return [await load(1), await load(1)]

    @app.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_json([await load(1), await load(1)])

    with TestClient(app) as client:
        assert [client.get("/twice").json() for _ in range(2)] == [[10, 10]] * 2
        assert calls == [[1], [1]]
        with client.websocket_connect("/ws") as socket:
            assert socket.receive_json() == [10, 10]
    assert calls == [[1]] * 4


@on_each_loop
async def test_a_task_that_outlives_its_request_asks_anew():
    load, calls = remembering()
    over = anyio.Event()

    async def lives_on():
        await over.wait()
        await load(1)
        await load(1)

    async with anyio.create_task_group() as tasks:
        with batch_scope():
            await load(1)
            tasks.start_soon(lives_on)
        over.set()
    assert calls == [[1], [1], [1]]


@on_each_loop
async def test_requests_that_share_calls_share_no_memory():
    load, calls = remembering(context="empty")

    async def request(value):
        with batch_scope():
            load.prime(7, value)
            return await load.many([1, 7])

    assert await at_once(request, 1, 2) == [[10, 1], [10, 2]]
    assert calls == [[1]]


@on_each_loop
async def test_what_was_read_as_one_user_is_not_given_to_another_in_the_same_request():
    user = ContextVar("user", default="nobody")
    options = {"context": user}, {"context": "same"}, {"context": "empty"}
    told = []
    for each in options:

        @batched(wait_s=0, cache="request", **each)
        async def load(keys):
            return [f"{user.get()}: {key}" for key in keys]

        with batch_scope():
            for name in ("a", "b", "a"):
                user.set(name)
                told.append(await load(1))
            load.prime(1, "written")  # as a
            told.append(await load(1))
            user.set("b")
            told.append(await load(1))
        told.append(load.reading().counts.calls)
    assert told[:6] == ["a: 1", "b: 1", "a: 1", "written", "b: 1", 3]  # b's was forgotten
    assert told[6:12] == told[:6]
    assert told[12:] == ["nobody: 1"] * 3 + ["written", "written", 1]


@on_each_loop
async def test_tasks_that_prime_with_contextvars_of_their_own_leave_nothing_of_each():
    span = ContextVar("span")
    load, _ = remembering(context=span)
    with batch_scope():
        for number in range(9):
            span.set(number)
            load.prime(1, "written")
        assert await load(1) == "written"
        (remembered,) = current_scope()._tables.values()
        assert len(remembered._tables) == 1


@on_each_loop
async def test_all_users_of_a_request_are_within_one_bound():
    user = ContextVar("user")
    load, calls = remembering(remembered_max=2, context=user)
    with batch_scope():
        for name in ("a", "b", "c", "a", "b", "c"):
            user.set(name)
            await load(1)
        assert len(calls) == 4  # c's is asked each time
        load.clear(1)
        await load(1)
        await load(1)
        assert len(calls) == 5

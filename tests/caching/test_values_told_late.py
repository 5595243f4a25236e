"""Values over Redis: begun before others told something; purges that were broken off."""

import asyncio

import pytest

from perf_middleware import ValueCache
from perf_middleware.caching.values.kept import Terms
from perf_middleware.caching.values.stores import tiered
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.processes import until
from tests.fleet.servers import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
async def pair(redis_server, request, monkeypatch):
    monkeypatch.setattr(tiered, "MADE_UP_EVERY_S", 0.01)
    namespace = f"late{abs(hash(request.node.name)) % 10**9}"
    fleets = [Fleet(redis_server.url, namespace=namespace, timeout_s=5.0) for _ in range(2)]
    stores = []
    for fleet in fleets:
        memo = ValueCache()
        memo.share(fleet)
        stores.append(memo._core.store)
        fleet.ensure_kept()
    await until(lambda: all(fleet.is_up for fleet in fleets))
    yield stores
    for fleet in fleets:
        await fleet.close()


@pytest.mark.parametrize(
    ("purged", "is_stored"),
    [
        pytest.param("table:items", False, id="what it is about was purged"),
        pytest.param("table:users", True, id="something else was"),
    ],
)
async def test_a_value_whose_tags_came_with_it_is_in_memory_only_if_redis_takes_it(
    pair, purged, is_stored, monkeypatch
):
    store, other = pair
    heard = store.heard()
    await other.purge([purged])
    await until(lambda: store.heard() != heard)
    kept, keep = [], store.memory.keep
    monkeypatch.setattr(store.memory, "keep", lambda *it: (kept.append(it), keep(*it))[1])
    terms = Terms(ttl_us=60_000_000, tags=("table:items",), heard=heard)
    assert await store.put("sum", 1, terms) is is_stored
    assert bool(kept) is is_stored
    assert (store.memory.find("sum") is not None) is is_stored


async def test_what_was_purged_while_redis_took_it_is_not_kept(pair, monkeypatch):
    store, other = pair
    heard = store.heard()
    await other.purge(["table:users"])
    await until(lambda: store.heard() != heard)
    put = store._far.put_sealed

    async def and_then_purged(*what):
        is_stored = await put(*what)
        before = store.heard()
        await other.purge(["table:items"])
        await until(lambda: store.heard() != before)
        return is_stored

    monkeypatch.setattr(store._far, "put_sealed", and_then_purged)
    await store.put("sum", 1, Terms(ttl_us=60_000_000, tags=("table:items",), heard=heard))
    assert store.memory.find("sum") is None


async def test_a_purge_that_was_broken_off_is_made_up_for(pair, monkeypatch):
    store, other = pair
    await store.put("sum", 1, Terms(ttl_us=60_000_000, tags=("table:items",)))
    purge, entered = store._far.purge, asyncio.Event()

    async def hangs(*_what, **_how):
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(store._far, "purge", hangs)
    asked = asyncio.create_task(store.purge(["table:items"]))
    await entered.wait()
    monkeypatch.setattr(store._far, "purge", purge)
    asked.cancel()
    await asyncio.wait([asked])
    await until(lambda: not store.pending)
    assert await other.get("sum") is None

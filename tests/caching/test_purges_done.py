"""Whether all that a cache has heard is done in its memory: what leases and answers go by."""

import asyncio

import pytest

from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.runtime import ResponseCache
from perf_middleware.fleet.layout import COUNT, message
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.processes import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Hearing:
    """A cache that hears what a test tells it."""

    def __init__(self):
        fleet = Fleet("redis://nowhere:1")
        self.cache = ResponseCache(options=CacheOptions())
        self.cache.share(fleet)
        self.records = fleet.records("cache")
        self.purges = self.cache.shared.purges
        self.told = []
        self.records.on_done = lambda: self.told.append(self.records.is_done())
        self.records._life = [b"life"]
        self.count = 0

    def hear(self, body):
        self.count += 1
        self.records.hear(COUNT.pack(self.count) + b"another!" + bytes(2) + body)


TAG = message("tag", "it", b"", False)


async def test_a_purge_that_was_heard_is_done_when_it_has_left_memory():
    hearing = Hearing()
    assert hearing.records.is_done()
    hearing.hear(message("target", b"http://x/1", False, False))
    assert hearing.records.is_done()  # at once
    hearing.hear(TAG)
    hearing.hear(message("pattern", "/items/*", False))
    assert not hearing.records.is_done()
    task = asyncio.create_task(hearing.purges.run())
    await until(hearing.records.is_done)
    assert hearing.told == [False, True]
    task.cancel()
    await asyncio.wait([task])


async def test_a_purge_that_goes_on_is_not_done(monkeypatch):
    hearing = Hearing()
    gate = asyncio.Event()

    async def keys(*_args, **_how):
        await gate.wait()

    monkeypatch.setattr(hearing.cache.purging, "keys", keys)
    task = asyncio.create_task(hearing.purges.run())
    hearing.hear(TAG)
    await until(lambda: not hearing.purges._news)
    assert not hearing.records.is_done()
    gate.set()
    await until(hearing.records.is_done)
    task.cancel()
    await asyncio.wait([task])


async def test_where_everything_has_left_memory_all_is_done_though_it_is_not_freed():
    hearing = Hearing()
    hearing.hear(TAG)
    hearing.records.on_gap()
    assert hearing.records.is_done()
    hearing.hear(TAG)
    assert not hearing.records.is_done()


async def test_a_purge_that_fails_half_way_empties_memory(monkeypatch):
    hearing = Hearing()

    async def keys(*_args, **_how):
        raise RuntimeError("half way")

    cleared = []
    monkeypatch.setattr(hearing.cache.purging, "keys", keys)
    monkeypatch.setattr(
        hearing.cache.store, "clear", lambda: (cleared.append(hearing.records.is_done()), ())
    )
    hearing.hear(TAG)
    with pytest.raises(RuntimeError, match="half way"):
        await hearing.purges.run()
    assert cleared == [False]
    assert hearing.records.is_done()

"""A cold key is computed once across processes, and nobody waits long for what does not come."""

import asyncio
import time

import pytest

from perf_middleware.caching.stores.shared import leases
from tests.driving import DEADLINE_S
from tests.fleet.processes import Pages, Process, running, until
from tests.fleet.proxy import Proxy

LEASE_S = leases.LEASE_MS / 1_000
SLACK_S = 60.0  # a machine that does other things too

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def pages():
    """Whose calls wait until the test opens the gate."""
    return Pages()


@pytest.fixture
def told_only(monkeypatch):
    """No time ends a lease or a wait for one: who goes on was told to."""
    for place in ("perf_middleware.caching.stores.shared", leases.__name__):
        monkeypatch.setattr(f"{place}.LEASE_MS", int(4_000 * DEADLINE_S))
    held, wait = leases.Leases.held, leases.Leases.wait

    def held_long(self, place, key, token, *, seconds):
        return held(self, place, key, token, seconds=4 * DEADLINE_S)

    async def wait_long(self, key, *, asked_s, seconds):
        await wait(self, key, asked_s=asked_s, seconds=4 * DEADLINE_S)

    monkeypatch.setattr(leases.Leases, "held", held_long)
    monkeypatch.setattr(leases.Leases, "wait", wait_long)


def asked(process, count, path="/p"):
    return [asyncio.create_task(process.get(path)) for _ in range(count)]


@pytest.mark.usefixtures("told_only")
async def test_a_cold_key_is_computed_once_for_all_processes(redis_server, pages):
    pages.gate = asyncio.Event()
    some = [Process(pages, redis_server.url, namespace="once") for _ in range(3)]
    async with running(*some):
        asking = [task for process in some for task in asked(process, 5)]
        await until(lambda: sum(process.shared.leases.waited for process in some) == 2)
        assert pages.calls == ["/p"]
        pages.gate.set()
        async with asyncio.timeout(DEADLINE_S):
            answers = await asyncio.gather(*asking)
        assert {answer.body for answer in answers} == {b"/p 0"}
        assert pages.calls == ["/p"]
        assert sum(process.figure("perf_cache_shared_waits") for process in some) == 2


@pytest.mark.usefixtures("told_only")
async def test_whoever_comes_while_it_is_computed_waits_too(redis_server, pages):
    pages.gate = asyncio.Event()
    one, two = (Process(pages, redis_server.url, namespace="later") for _ in range(2))
    async with running(one, two):
        first = asked(one, 1)
        await until(lambda: pages.calls)
        second = asked(two, 3)
        await until(lambda: two.shared.leases.waited)
        pages.gate.set()
        await asyncio.gather(*first, *second)
        assert pages.calls == ["/p"]


async def test_a_holder_that_dies_is_waited_for_no_longer_than_its_lease(
    redis_server, pages, monkeypatch
):
    """It dies without a word, as a killed process does: its connection is cut, nothing is given
    back.
    """
    wait, waits_s = leases.Leases.wait, []

    async def noted(self, key, *, asked_s, seconds):
        waits_s.append(seconds)
        await wait(self, key, asked_s=asked_s, seconds=seconds)

    monkeypatch.setattr(leases.Leases, "wait", noted)
    pages.gate = asyncio.Event()
    async with Proxy(redis_server.port) as proxy:
        one = Process(pages, f"redis://127.0.0.1:{proxy.port}/0", namespace="dies")
        two = Process(pages, redis_server.url, namespace="dies")
        async with running(one, two):
            first = asked(one, 1)
            await until(lambda: len(one.shared.leases))
            second = asked(two, 3)
            await until(lambda: two.shared.leases.waited)
            async with silenced(one, proxy):
                await until(lambda: len(pages.calls) == 2)  # two has gone on, alone
            assert 0 < max(waits_s) <= LEASE_S + leases.SLACK_S
            pages.gate.set()
            await asyncio.gather(*first, *second)
            assert pages.calls == ["/p", "/p"]


class silenced:  # noqa: N801 - reads as a word
    """The process says nothing to the server any more."""

    def __init__(self, process, proxy):
        self._process, self._proxy = process, proxy

    async def __aenter__(self):
        self._proxy.delay_s = 3600
        self._process.link.give_up("dead")

    async def __aexit__(self, *failure):
        self._proxy.delay_s = 0


@pytest.mark.usefixtures("told_only")
async def test_a_holder_that_is_cancelled_gives_its_lease_back_at_once(redis_server, pages):
    pages.gate = asyncio.Event()
    one, two = (Process(pages, redis_server.url, namespace="cancel") for _ in range(2))
    async with running(one, two):
        (first,) = asked(one, 1)
        await until(lambda: pages.calls)
        second = asked(two, 2)
        await until(lambda: two.shared.leases.waited)
        first.cancel()
        await until(lambda: len(pages.calls) == 2)
        pages.gate.set()
        await asyncio.gather(*second)
        assert len(one.shared.leases) == 0


@pytest.mark.usefixtures("told_only")
async def test_an_answer_that_cannot_be_stored_releases_who_waits(redis_server, pages):
    pages.gate = asyncio.Event()
    pages.lifetime = b"no-store"
    one, two = (Process(pages, redis_server.url, namespace="unstorable") for _ in range(2))
    async with running(one, two):
        first = asked(one, 1)
        await until(lambda: pages.calls)
        second = asked(two, 2)
        await until(lambda: two.shared.leases.waited)
        pages.gate.set()
        async with asyncio.timeout(DEADLINE_S):
            answers = await asyncio.gather(*first, *second)
        assert {answer.body for answer in answers} == {b"/p 0"}
        await until(lambda: not one.shared.leases and not two.shared.leases)


@pytest.mark.usefixtures("told_only")
async def test_a_server_that_is_lost_releases_who_waits_at_once(own_redis, pages):
    """Nothing would tell them any more."""
    pages.gate = asyncio.Event()
    one, two = (Process(pages, own_redis.url) for _ in range(2))
    async with running(one, two):
        first = asked(one, 1)
        await until(lambda: pages.calls)
        second = asked(two, 2)
        await until(lambda: two.shared.leases.waited)
        own_redis.kill()
        await until(lambda: len(pages.calls) == 2)
        pages.gate.set()
        await asyncio.gather(*first, *second)
        assert two.shared.leases._landings == {}


async def test_a_lease_is_held_on_while_the_app_is_slow_but_not_beyond_its_bound(
    redis_server, pages, monkeypatch
):
    """Shorter than in earnest: a lease of half a second, and patience of a whole one."""
    monkeypatch.setattr("perf_middleware.caching.stores.shared.LEASE_MS", 500)
    monkeypatch.setattr(leases, "LEASE_MS", 500)
    monkeypatch.setattr(leases, "HELD_EVERY_S", 0.03)
    pages.gate = asyncio.Event()
    one, two = (Process(pages, redis_server.url, namespace="held") for _ in range(2))
    async with running(one, two):
        began_s = time.monotonic()
        first = asked(one, 1)
        await until(lambda: one.shared.leases)
        # The app takes longer than a lease that nobody holds on, and is waited for.
        await asyncio.sleep(0.75)
        assert await is_leased(one) or time.monotonic() - began_s > 0.95
        # Its bound is what a request may wait: a second for a route that has answered nothing yet.
        await until(lambda: not one.shared.leases)
        assert time.monotonic() - began_s > 0.9
        while await is_leased(one):
            assert time.monotonic() - began_s < 1.0 + SLACK_S
            await asyncio.sleep(0.02)
        second = asked(two, 1)
        await until(lambda: len(pages.calls) == 2)
        pages.gate.set()
        await asyncio.gather(*first, *second)


async def is_leased(process):
    keys = [key async for slice_ in process.link.scan(b"{held:cache:0}r:") for key in slice_]
    return any(key.endswith(b"\tl") for key in keys)


async def test_a_request_that_waits_and_is_cancelled_leaves_nothing_behind(redis_server, pages):
    pages.gate = asyncio.Event()
    one, two = (Process(pages, redis_server.url, namespace="leaves") for _ in range(2))
    async with running(one, two):
        first = asked(one, 1)
        await until(lambda: pages.calls)
        (second,) = asked(two, 1)
        await until(lambda: two.shared.leases._landings)
        second.cancel()
        await asyncio.wait([second])
        assert two.shared.leases._landings == {}
        pages.gate.set()
        await asyncio.gather(*first)

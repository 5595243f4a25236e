"""Redis breaks while requests come: none fails, few wait, it is said once, and it heals by itself.

The servers are real and really killed, stopped and filled.  Two installs stand for two processes.
"""

import asyncio
import logging
import time
from contextlib import asynccontextmanager

import pytest

from tests.driving import ask, http_scope
from tests.fleet.processes import TIMEOUT_S, Load, Pages, Process, running, until
from tests.fleet.proxy import NONSENSE, Proxy, mad_server

SLACK_S = 60.0  # of a machine that does other things too, on top of that

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def said(caplog):
    """What is logged of Redis, by level."""
    caplog.set_level(logging.INFO, "perf_middleware.redis")

    def of(level):
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "perf_middleware.redis" and record.levelname == level
        ]

    of.clear = caplog.clear
    return of


# --- one fault after the other, under load ------------------------------------------------------


@asynccontextmanager
async def killed(server, proxy):
    server.kill()
    yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def frozen(server, proxy):
    server.freeze()
    yield
    server.thaw()


@asynccontextmanager
async def slow(server, proxy):
    proxy.delay_s = 2 * TIMEOUT_S
    yield
    proxy.delay_s = 0.0


@asynccontextmanager
async def talks_nonsense(server, proxy):
    proxy.says = NONSENSE
    yield
    proxy.says = None


@asynccontextmanager
async def another_that_talks_nonsense(server, proxy):
    server.kill()
    async with mad_server(server.port, NONSENSE):
        yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def another_that_says_ok(server, proxy):
    server.kill()
    async with mad_server(server.port, b"+OK\r\n"):
        yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def says_ok_to_everything(server, proxy):
    proxy.says = b"+OK\r\n"
    yield
    proxy.says = None


@pytest.mark.parametrize(
    "fault",
    [
        killed, frozen, slow, talks_nonsense, says_ok_to_everything, another_that_talks_nonsense,
        another_that_says_ok,
    ],
)  # fmt: skip
async def test_a_fault_fails_no_request_opens_the_circuit_is_told_once_and_heals(
    fault, own_redis, said
):
    pages = Pages()
    async with Proxy(own_redis.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        one, two = both = [Process(pages, url), Process(pages, url)]
        async with running(*both):
            async with Load(*both) as load:
                assert one.figure("perf_redis_up") == 1
                said.clear()
                async with fault(own_redis, proxy):
                    await until(lambda: not one.is_up and not two.is_up)
                    await load.more(2 * load.clients)
                    assert all(process.paid <= load.clients // 2 for process in both)
                    await until(lambda: all(process.state == "degraded" for process in both))
                    sent = [process.link.commands for process in both]
                    paid, connections = [process.paid for process in both], proxy.accepted
                    await load.more(200)
                    # Requests send nothing; each attempt to connect may ask for the time.
                    probes = proxy.accepted - connections + 2
                    assert sum(p.link.commands for p in both) - sum(sent) <= probes
                    assert [process.paid for process in both] == paid
                    assert len(said("WARNING")) == 2, said("WARNING")
                    assert said("INFO") == []
                    assert one.figure("perf_redis_up") == 0
                    if fault in {frozen, slow}:
                        assert one.figure("perf_redis_timeouts") >= 1
                await until(lambda: one.is_up and two.is_up)
                await load.more(2 * load.clients)
            await one.reads("/after")
            await one.settled()
            assert await two.reads("/after") == (b"/after 0", True)
    assert load.longest_s < TIMEOUT_S + SLACK_S
    assert len(said("WARNING")) == 2
    assert len(said("INFO")) == 2
    for process in both:
        assert process.figure("perf_redis_changes", to="up") == 2
        assert process.figure("perf_redis_changes", to="down") == 1


async def test_a_frozen_server_is_late_once_and_not_asked_again(own_redis):
    process = Process(Pages(), own_redis.url, heartbeat_s=60)
    async with running(process):
        own_redis.freeze()
        answers = await asyncio.gather(*(process.get(f"/{number}") for number in range(50)))
        assert {answer.status for answer in answers} == {200}
        assert process.figure("perf_redis_timeouts") == 1
        assert process.paid == 50
        await process.get("/later")
        assert process.paid == 50
        await until(lambda: process.state == "degraded")


async def test_a_server_that_restarts_empty_takes_what_is_in_memory_with_it(own_redis, said):
    """Its data had the purges that were missed: whoever kept something cannot know of them."""
    pages = Pages()
    one, two = both = [Process(pages, own_redis.url), Process(pages, own_redis.url)]
    async with running(*both), Load(*both) as load:
        said.clear()
        await one.reads("/kept")
        await one.settled()
        assert await two.reads("/kept") == (b"/kept 0", True)
        own_redis.kill()
        await until(lambda: not one.is_up and not two.is_up)
        await asyncio.to_thread(own_redis.start)
        await until(lambda: one.is_up and two.is_up)
        await until(lambda: one.figure("perf_redis_gaps", space="cache") == 1)
        await load.more(load.clients)
        pages.change("/kept")  # without a purge: only what memory holds would be old
        await until(lambda: not two.shared.purges._news)
        assert (await two.reads("/kept"))[0] == b"/kept 1"
        pages.versions.clear()
    assert (len(said("WARNING")), len(said("INFO"))) == (2, 2)


async def test_a_full_server_fails_no_request_and_still_purges(own_redis, said):
    pages = Pages()
    one, two = both = [Process(pages, own_redis.url), Process(pages, own_redis.url)]
    async with running(*both), Load(*both) as load:
        await one.reads("/before")
        await one.settled()
        await two.reads("/before")
        own_redis.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
        own_redis.say("CONFIG", "SET", "maxmemory", "1mb")
        refused = one.figure("perf_redis_refusals")
        await load.more(150)
        assert one.figure("perf_redis_refusals") > refused
        stored = one.shared.stored
        # What is stored already is purged for all, though nothing can be stored any more.
        for soft in (True, False):
            pages.change("/before")
            await one.cache.purge(url="/before", soft=soft)
            await until_new(two, "/before")
        third = Process(pages, own_redis.url)
        assert one.shared.purges.pending == 0
        assert one.shared.stored == stored
        assert all(process.is_up for process in both)
        own_redis.say("CONFIG", "SET", "maxmemory", "0")
        async with running(third):
            assert (await third.reads("/before"))[0] == b"/before 2"
        await until(lambda: one.shared.stored > stored)
    assert said("WARNING") == []


async def until_new(process, path):
    """A message takes a moment; a stale answer after it would go on for ever."""
    end_s = time.monotonic() + 120
    while (await process.reads(path))[0] != process.pages.now(path):
        assert time.monotonic() < end_s, f"{path} is stale"
        await asyncio.sleep(0.01)


# --- purges and messages ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "purge",
    [
        pytest.param({"url": "/p"}, id="url"),
        pytest.param({"tags": ["group"]}, id="tag"),
        pytest.param({"pattern": "/*"}, id="pattern"),
        pytest.param({"everything": True}, id="everything"),
        pytest.param({"url": "/p", "soft": True}, id="softly"),
        pytest.param(None, id="a write"),
    ],
)
async def test_what_was_purged_while_redis_was_away_is_purged_when_it_is_back(purge, own_redis):
    pages = Pages()
    pages.fields = [(b"cache-groups", b'"group"')]
    one, two, third = (Process(pages, own_redis.url) for _ in range(3))
    async with running(one, two):
        await one.reads("/p")
        await one.settled()
        assert (await two.reads("/p"))[1]
        own_redis.freeze()
        await one.reads("/q")  # finds out
        pages.change("/p")
        if purge is None:
            await ask(one.perf, http_scope("/p", method="PUT"))
        else:
            await one.cache.purge(**purge)
        assert one.shared.purges.pending >= 1
        assert one.figure("perf_cache_shared_purges_pending") >= 1
        await until_new(one, "/p")
        own_redis.thaw()
        await until(lambda: one.is_up and two.is_up)
        assert one.shared.purges.pending == 0
        async with running(third):  # has nothing of its own: what Redis holds
            if not (purge or {}).get("soft"):  # else it may be served while the app is asked
                assert (await third.reads("/p"))[0] == b"/p 1"
            await until_new(third, "/p")
        await until_new(two, "/p")


async def test_a_purge_that_the_server_refuses_is_made_up_for_before_it_is_read_again(
    own_redis, said
):
    """NOREPLICAS, MISCONF and the like: it answers reads and takes no writes."""
    pages = Pages()
    one, two = both = [Process(pages, own_redis.url), Process(pages, own_redis.url)]
    async with running(*both):
        await one.reads("/p")
        await one.settled()
        await two.reads("/p")
        own_redis.say("CONFIG", "SET", "min-replicas-to-write", "1")
        pages.change("/p")
        await one.cache.purge(url="/p")
        assert (await one.reads("/p"))[0] == b"/p 1"
        assert not one.is_up
        await until(lambda: said("WARNING"))
        assert "NOREPLICAS" in said("WARNING")[0]
        own_redis.say("CONFIG", "SET", "min-replicas-to-write", "0")
        await until(lambda: one.is_up)
        await until_new(two, "/p")


async def test_a_lost_message_leaves_nothing_stale(own_redis):
    """The connection that hears of purges is killed from outside, and another process purges."""
    pages = Pages()
    one, two = both = [Process(pages, own_redis.url), Process(pages, own_redis.url)]
    async with running(*both):
        for number in range(5):
            path = f"/{number}"
            await two.reads(path)
            await two.settled()
            await one.reads(path)
            changes = one.fleet.changes["down"]
            host, port = one.link._connection._writer.get_extra_info("sockname")
            assert own_redis.say("CLIENT", "KILL", "ADDR", f"{host}:{port}") == b":1"
            pages.change(path)
            await two.cache.purge(url=path)
            await until(lambda changes=changes: one.fleet.changes["down"] > changes)
            await until(lambda: one.is_up)
            await until_new(one, path)


async def test_messages_that_overflow_the_buffer_leave_nothing_stale(own_redis):
    """A process that reads too slowly is thrown out by the server, and knows what it missed."""
    pages = Pages()
    async with Proxy(own_redis.port, room_bytes=65_536) as proxy:
        one = Process(pages, f"redis://127.0.0.1:{proxy.port}/0", timeout_s=10, heartbeat_s=1)
        two = Process(pages, own_redis.url)
        own_redis.say("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 256kb 0")
        async with running(one, two):
            await two.reads("/p")
            await two.settled()
            await one.reads("/p")
            proxy.delay_s = 0.3  # what it reads comes late, and piles up at the server
            changes = one.fleet.changes["down"]
            long = "/long" + "x" * 10_000  # longer ones are not counted by Valkey 9
            pages.change("/p")
            for number in range(5_000):
                await two.cache.purge(url=f"{long}{number}")
                if "output buffer limits" in own_redis.log():
                    break
            assert "output buffer limits" in own_redis.log()
            await two.cache.purge(url="/p")
            proxy.delay_s = 0.0
            await until(lambda: one.fleet.changes["down"] > changes)
            await until(lambda: one.is_up)
            await until_new(one, "/p")


async def test_a_lost_counter_does_not_end_the_sharing(own_redis):
    """A server that evicts may evict the number of messages too."""
    pages = Pages()
    one, two = both = [Process(pages, own_redis.url), Process(pages, own_redis.url)]
    async with running(*both):
        await one.cache.purge(url="/p")
        await until(lambda: two.shared._records.seen[0] >= 1)
        assert own_redis.say("DEL", "{app:cache:0}n") == b":1"
        end_s = time.monotonic() + 120
        for number in range(10_000):
            path = f"/after/{number}"
            await one.reads(path)
            await one.settled()
            if (await two.reads(path))[1]:
                break
            assert time.monotonic() < end_s, "nothing is shared any more"
            await asyncio.sleep(0.05)


# --- what else can go wrong ---------------------------------------------------------------------


async def test_an_app_that_blocks_the_event_loop_does_not_make_an_answer_late(own_redis):
    process = Process(Pages(), own_redis.url)
    async with running(process):
        for number in range(4):
            asking = asyncio.create_task(process.get(f"/{number}"))
            while not process.link.waiting:
                assert not asking.done()
                await asyncio.sleep(0)
            time.sleep(0.3)
            assert (await asking).status == 200
            await process.settled()
        assert process.is_up
        assert process.figure("perf_redis_timeouts") == 0
        assert process.fleet.changes == {"up": 1, "down": 0}


async def test_a_frozen_server_whose_socket_is_full_holds_no_request_up(own_redis):
    """What is being stored fills the socket; whoever asks behind it must not wait for its room."""
    import os

    big = os.urandom(12 << 20)

    async def app(scope, receive, send):
        body = big if scope["path"].startswith("/big") else b"small"
        await gate.wait()
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    gate = asyncio.Event()
    process = Process(
        Pages(), own_redis.url, app=app,
        cache={"bytes_max": 256 << 20, "entry_bytes_max": 16 << 20},
    )  # fmt: skip
    async with running(process):
        asking = [asyncio.create_task(process.get(f"/big/{number}")) for number in range(2)]
        await until(lambda: process.shared.missing == 2)
        own_redis.freeze()
        gate.set()
        await asyncio.gather(*asking)
        await until(lambda: process.link.waiting)
        small = await asyncio.wait_for(
            asyncio.gather(*(process.get(f"/small/{number}") for number in range(10))),
            TIMEOUT_S + SLACK_S,
        )
        assert {answer.body for answer in small} == {b"small"}
        await until(lambda: not process.is_up)


async def test_a_request_that_is_cancelled_while_it_looks_up_takes_no_other_s_answer(own_redis):
    pages = Pages()
    async with Proxy(own_redis.port) as proxy:
        one = Process(pages, f"redis://127.0.0.1:{proxy.port}/0", timeout_s=5)
        two = Process(pages, own_redis.url)
        async with running(one, two):
            for number in range(20):
                await two.reads(f"/{number}")
            await two.settled()
            proxy.delay_s = 0.1
            asking = [asyncio.create_task(one.get(f"/{number}")) for number in range(20)]
            await until(lambda: one.link.waiting >= 20)
            for task in asking[::2]:
                task.cancel()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
            kept = {answer.body for answer in answers[1::2]}
            assert kept == {f"/{number} 0".encode() for number in range(1, 20, 2)}
            assert one.is_up
            proxy.delay_s = 0
            for number in range(20):
                assert (await one.reads(f"/{number}"))[0] == f"/{number} 0".encode()


@pytest.mark.parametrize("value", [b"", b"x", b"V", b"\x01-1234567", b"\x01-" + bytes(30)])
async def test_a_record_that_is_none_is_a_miss(value, own_redis):
    process = Process(Pages(), own_redis.url)
    async with running(process):
        await process.reads("/p")
        await process.settled()
        await process.cache.purging.everything(soft=False)
        await process.settled()
        from perf_middleware.caching.places import record_key

        await process.reads("/p")
        await process.settled()
        (stored,) = process.cache.store.of_path(b"/p")
        await process.link.command("SET", b"{app:cache:0}r:" + record_key(stored.primary), value)
        process.cache.store.clear()
        assert await process.reads("/p") == (b"/p 0", False)
        assert process.is_up


async def test_a_connection_that_is_lost_with_its_last_step_is_not_used(own_redis, said):
    process = Process(Pages(), own_redis.url)
    lost = []

    async def lose():
        if len(lost) < 3:
            lost.append(process.link.is_up)
            process.link.give_up("lost meanwhile")

    process.fleet.before_use(lose)
    async with running(process, up=False):
        await until(lambda: process.is_up)
        assert lost == [False, False, False]
        assert process.fleet.changes == {"up": 1, "down": 1}
        assert (await process.get("/p")).status == 200


async def test_an_app_that_ends_while_answers_are_awaited_leaves_nothing_behind(own_redis):
    pages = Pages()
    process = Process(pages, own_redis.url, timeout_s=10, heartbeat_s=60)
    mine = asyncio.all_tasks()
    async with running(process):
        transport = process.link._connection._writer.transport
        own_redis.freeze()
        asking = asyncio.create_task(process.get("/p"))
        await until(lambda: process.link.waiting)
    assert transport.is_closing()
    assert (await asking).body == b"/p 0"
    # A late request of a server that is going: nothing is begun that nobody would end.
    assert (await process.get("/q")).body == b"/q 0"
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - {asking} == mine
    own_redis.thaw()
    async with running(process):
        assert (await process.get("/r")).status == 200
    assert process.fleet.changes["up"] == 2


async def test_a_server_that_is_away_at_the_start_is_used_as_soon_as_it_is_there(own_redis, said):
    own_redis.kill()
    process = Process(Pages(), own_redis.url)
    async with running(process, up=False):
        assert process.state == "degraded"
        assert (await process.get("/p")).status == 200
        assert said("WARNING") == []  # the start has told it
        await asyncio.to_thread(own_redis.start)
        await until(lambda: process.is_up)
        assert process.state == "open"
        assert len(said("INFO")) == 1


async def test_a_connection_that_comes_and_goes_is_made_less_and_less_often(own_redis, monkeypatch):
    """A server that answers pings and nothing else would be given up ten times a second."""
    monkeypatch.setattr("perf_middleware.fleet.runtime.random.random", lambda: 1.0)
    process = Process(Pages(), own_redis.url)
    ups = []

    def lose(is_up, why):
        if is_up:
            ups.append(time.monotonic())
            process.link.give_up("lost again")

    async with running(process, up=False):
        process.fleet.on_change = lose
        process.link.give_up("lost")
        await until(lambda: len(ups) >= 5)
        assert ups[4] - ups[0] > 0.1 + 0.2 + 0.4 + 0.8


async def test_too_many_purges_while_others_are_made_up_for_become_one_of_everything(
    own_redis, monkeypatch
):
    monkeypatch.setattr("perf_middleware.caching.stores.shared.purges.PENDING_MAX", 2)
    process = Process(Pages(), own_redis.url)
    purges = process.shared.purges
    do, done = purges._do, []

    async def noted(purge, *, before_use=False):
        if before_use and not done:
            done.append(purge)
            await process.cache.purge(url="/third")  # while it is not in use yet
            return await do(purge, before_use=True)
        done.append(purge)
        return await do(purge, before_use=before_use)

    async with running(process):
        process.link.give_up("lost")
        await process.cache.purge(url="/first")
        await process.cache.purge(url="/second")
        assert purges.pending == 2
        done.clear()
        purges._do = noted
        await until(lambda: process.is_up)
        assert purges.pending == 0
        assert done[-1][0] == "everything"

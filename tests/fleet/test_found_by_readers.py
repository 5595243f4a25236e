"""Faults that readers of the code found: each was there once."""

import asyncio

import pytest
from starlette.applications import Starlette

from perf_middleware import (
    Settings,
    SettingsError,
    UnpackableValueError,
    ValueCache,
    install,
)
from perf_middleware.fleet.runtime import Fleet
from tests.fleet.test_shared_values import two, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


def name_of(process, name):
    return f"{{{process.fleet.namespace}:memo:0}}{name}"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def pair(redis_server, request):
    async with two(redis_server, f"r{abs(hash(request.node.name)) % 10**9}") as both:
        yield both


class Background:
    """As the lifespan plugin's."""

    def __init__(self):
        self.tasks = []

    def start(self, name, run):
        self.tasks.append(asyncio.ensure_future(run()))

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_who_used_it_before_the_start_leaves_no_second_connection(redis_server):
    fleet = Fleet(redis_server.url, namespace="early", timeout_s=5.0)
    memo = ValueCache()
    memo.share(fleet)
    await memo.get("k")
    await until(lambda: fleet.is_up)
    first = fleet.link._transport
    held = asyncio.ensure_future(fleet.link.command("BLPOP", "nothing", 5))
    await asyncio.sleep(0)
    background = Background()
    await fleet.open(background)
    assert first.is_closing()
    assert await fleet.link.command("ECHO", "mine") == b"mine"
    await asyncio.gather(held, return_exceptions=True)
    await fleet.close()
    await background.end()


async def test_a_look_up_on_its_way_brings_nothing_older_than_a_set(pair):
    first, second = pair
    await second.memo.set("k", "old", ttl=None)
    await asyncio.gather(first.memo.get("k"), first.memo.set("k", "new", ttl=None))
    assert await first.memo.get("k") == "new"
    await until(lambda: second.memo._core.look("k") is None)
    assert await second.memo.get("k") == "new"


async def test_what_is_set_is_told_also_where_redis_has_lost_it(pair):
    first, second = pair
    await first.memo.set("k", "old", ttl=None)
    await first.fleet.link.command("UNLINK", name_of(first, "r:k"))
    await second.memo.set("k", "new", ttl=None)
    await until(lambda: first.memo._core.look("k") is None)
    assert await first.memo.get("k") == "new"


async def test_what_is_set_while_redis_is_away_does_not_come_back_as_it_was(pair):
    first, second = pair
    await first.memo.set("k", "old", ttl=None)
    first.fleet.link.give_up("for this test")
    assert await first.memo.set("k", "new", ttl=None)
    await until(lambda: first.fleet.is_up)
    await until(lambda: second.memo._core.look("k") is None)
    assert await second.memo.get("k") in {None, "new"}


async def test_no_invalidation_of_many_at_once_is_lost(pair):
    first, second = pair
    await first.memo.set_many(dict.fromkeys(map(str, range(1_500)), 1), ttl=60)
    for number in range(1_500):
        first.memo._core.forget([str(number)])
    await until(lambda: first.fleet.is_up and not first.memo._core.store.pending)

    async def none_left():
        return await second.memo.get_many(map(str, range(1_500)))

    while await none_left():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("text", ["\ud800", "é\udcff"])
async def test_a_text_that_utf_8_does_not_know_is_a_key_and_a_tag_as_any_other(pair, text):
    first, second = pair
    assert await first.memo.set(text, 1, ttl=60, tags=(text,))
    assert await second.memo.get(text) == 1
    assert await first.memo.purge(tags=text) == 1
    await until(lambda: second.memo._core.look(text) is None)
    assert await second.memo.get(text) is None
    await first.memo.delete(text)
    await first.memo.clear(pattern=f"{text}*")
    assert first.fleet.is_up


async def test_a_call_whose_tags_are_too_long_is_answered_and_not_shared(pair):
    first, _ = pair

    @first.memo.cached(ttl=60, tags=("q:{text}",))
    async def search(text):
        return len(text)

    assert await search("x" * 70_000) == 70_000
    assert search.stats().uncached == 1


@pytest.mark.parametrize("garbage", ["x", "", "y" * 9, "z" * 60])
async def test_bytes_that_are_no_record_are_a_miss(pair, garbage):
    first, _ = pair
    await first.fleet.link.command("SET", name_of(first, "r:k"), garbage)
    assert await first.memo.get("k") is None


async def test_another_type_under_a_key_is_a_miss(pair):
    first, _ = pair
    await first.fleet.link.command("LPUSH", name_of(first, "r:k"), "a")
    assert await first.memo.get("k") is None


async def test_a_sum_beyond_64_bits_is_an_error_of_its_own(pair):
    first, _ = pair
    await first.memo.incr("n", 2**63 - 1)
    with pytest.raises(OverflowError, match="64 bits"):
        await first.memo.incr("n")
    assert await first.memo.get("n") == 2**63 - 1


async def test_counting_leaves_nothing_behind(pair):
    first, _ = pair
    for _ in range(700):
        await first.memo.incr("visits")
    log = name_of(first, "p")
    assert await first.fleet.link.command("ZCARD", log) == 1
    assert await first.fleet.link.command("PTTL", log) > 0


async def test_counting_keeps_no_other_value_from_being_stored(pair):
    first, _ = pair

    @first.memo.cached(ttl=60, name="report")
    async def report():
        for number in range(600):
            await first.memo.incr(f"visits:{number % 7}")
        return "done"

    await report()
    assert report.stats().uncached == 0


async def test_a_counter_that_was_evicted_begins_anew_above_the_last_purge_of_everything(pair):
    first, second = pair
    for _ in range(30):
        await first.memo.clear()
    await first.fleet.link.command("UNLINK", name_of(first, "n"))
    await first.memo.set("k", 1, ttl=60)  # shows that it is lost
    await first.memo.set("l", 1, ttl=60)

    async def is_shared():
        await first.memo.set("k", 1, ttl=60)
        second.memo._core.memory.forget(["k"])
        return await second.memo.get("k") == 1

    async with asyncio.timeout(20):
        while not await is_shared():
            await asyncio.sleep(0.02)


async def test_a_soft_purge_in_slices_passes_over_nothing_while_responses_come(pair):
    first, _ = pair
    records = first.fleet.records("slices")
    await until(lambda: first.fleet.is_up)

    async def put(number, ttl_ms=60_000):
        key = b"%d" % number
        content = b"\1-" + bytes(8) + b"content"
        await records.put(key, key, content, ttl_ms=ttl_ms, indexes=[b"t:x"], seen=records.seen,
                          message=b"m")  # fmt: skip

    for number in range(100):
        await put(number, ttl_ms=1)
    for number in range(100, 1_000):
        await put(number)
    run, slices = first.fleet.link.run, []

    async def slice_and_put(script, keys, arguments):
        answer = await run(script, keys, arguments)
        if script.name == "purge" and not slices:
            slices.append(answer)
            for number in range(2_000, 2_003):
                await put(number)
        return answer

    records._link = type("Link", (), {"run": staticmethod(slice_and_put)})()
    await records.purge(b"t:x", message=b"m", soft=True)
    records._link = first.fleet.link
    found = [await records.find(b"%d" % number, b"%d" % number) for number in range(100, 1_000)]
    assert all(record.is_soft for record in found)


async def test_a_cache_that_is_switched_off_gives_nothing(pair):
    first, second = pair
    await first.memo.set("k", 1, ttl=60)
    second.memo.adjust(enabled=False)
    assert await second.memo.get("k") is None
    assert await second.memo.get_many(["k"]) == {}


async def test_what_begins_to_share_later_is_told_all_the_same(pair, redis_server):
    first, _ = pair
    fleet = Fleet(redis_server.url, namespace=first.fleet.namespace, timeout_s=5.0)
    fleet.ensure_kept()
    await until(lambda: fleet.is_up)
    memo = ValueCache()
    memo.share(fleet)
    await until(lambda: fleet.is_up)
    await memo.set("k", 1, ttl=60)
    assert await first.memo.get("k") == 1
    memo._core.forget(["k"])
    await until(lambda: first.memo._core.look("k") is None)
    await fleet.close()


async def test_two_value_caches_of_one_process_do_not_share_one_link(pair):
    first, _ = pair
    with pytest.raises(RuntimeError, match="another value cache"):
        ValueCache().share(first.fleet)


async def test_what_cannot_be_packed_changes_nothing_where_it_is_set(pair):
    first, second = pair
    await first.memo.set("d", 1, ttl=30)
    with pytest.raises(UnpackableValueError):
        await first.memo.set("d", object(), ttl=30)
    with pytest.raises(UnpackableValueError):
        await first.memo.set_many({"a": 1, "d": object()}, ttl=30)
    assert (await first.memo.get("d"), await second.memo.get("d")) == (1, 1)
    assert await first.memo.get("a") is None


async def test_a_refresh_whose_result_cannot_be_packed_forgets_what_was_there(pair):
    first, second = pair
    results = [1, object()]

    @first.memo.cached(ttl=60, name="odd")
    async def odd():
        return results.pop(0)

    await odd()
    assert await second.memo.get(odd.key()) == 1
    await odd.refresh()
    await until(lambda: second.memo._core.look(odd.key()) is None)
    assert await second.memo.get(odd.key()) is None


async def test_purges_that_are_lost_with_the_process_are_told(redis_server, caplog):
    fleet = Fleet("redis://127.0.0.1:1", namespace="lost")
    memo = ValueCache()
    memo.share(fleet)
    await memo.purge(tags="a")
    await memo.purge(tags="b")
    await fleet.close()
    assert "2 purges could not be made" in caplog.text


@pytest.mark.parametrize("field", ["required", "cluster"])
def test_what_needs_a_url_says_so(field):
    with pytest.raises(SettingsError, match="need a `url`"):
        Settings(redis={field: True})


def test_services_share_nothing_by_default(redis_server):
    urls = {"redis": {"url": redis_server.url}}
    one, other = (install(Starlette(), Settings(service=name, **urls)) for name in ("a", "b"))
    assert one.cache.shared._fleet.namespace == "a"
    assert other.cache.shared._fleet.namespace == "b"


async def test_a_full_redis_lets_go_of_a_value_and_is_used_on(own_redis):
    async with two(own_redis, "full") as (first, second):
        await first.memo.set("a", "old", ttl=None)
        await first.memo.set("b", "old", ttl=None)
        assert await second.memo.get_many(["a", "b"]) == {"a": "old", "b": "old"}
        own_redis.say("CONFIG", "SET", "maxmemory", "1")
        assert await first.memo.delete("a") == 1
        await first.memo.set("b", "new", ttl=None)
        await until(lambda: not second.memo._core.memory.keys())
        assert await second.memo.get_many(["a", "b"]) == {}
        assert await first.memo.get("b") == "new"
        assert first.fleet.is_up
        assert first.fleet.changes["down"] == 0


async def test_a_look_up_on_its_way_brings_no_count_older_than_the_own(pair):
    first, _ = pair
    await first.memo.incr("n")
    await asyncio.gather(first.memo.get("n"), first.memo.incr("n"))
    assert await first.memo.get("n") == 2

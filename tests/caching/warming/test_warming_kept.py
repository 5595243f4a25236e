"""What is kept from run to run, and which of several processes warms."""

import pytest
from starlette.applications import Starlette

from perf_middleware import Settings, SettingsError, install
from perf_middleware.caching.warming.plan import ask_of
from perf_middleware.caching.warming.stores.file import FileHottest
from tests.caching.warming.shop import Shop, run, until

ONE_BY_ONE = {"concurrency": 1}


def redis(server, **more):
    return {"url": server.url, "timeout_s": 10.0, "connect_timeout_s": 10.0, **more}


async def visit(shop, **times):
    for path, count in times.items():
        for _ in range(count):
            await shop.get(f"/{path}", ("accept-language", "de"))


def paths(shop):
    return [path for path, _ in shop.calls]


def test_the_next_run_begins_with_what_this_one_was_asked_for_most(tmp_path):
    warming = ONE_BY_ONE | {"remember": 3, "remember_dir": str(tmp_path / "kept")}

    async def scenario():
        first = Shop(warming=warming)
        async with first.perf.running():
            assert first.figures["last_run"]["planned"] == 0
            await visit(first, a=2, b=5, lang=9, c=3)
        (file,) = (tmp_path / "kept").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        second = Shop(warming=warming | {"urls": "/c"})
        async with second.perf.running():
            assert second.calls == [("/c", None), ("/lang", "de"), ("/b", None)]
            await visit(second, lang=2)
            assert len(second.calls) == 3

    run(scenario)


def test_what_is_not_asked_for_any_more_is_forgotten(tmp_path):
    async def scenario():
        kept = FileHottest(tmp_path, service="app", asks_max=2)
        old, new = (ask_of(f"http://a/{name}", base=None) for name in ("old", "new"))
        await kept.save([(old, 8.0)])
        await kept.save([(new, 5.0)])
        assert await kept.load() == [new, old]
        newest = ask_of("http://a/newest", base=None)
        await kept.save([(newest, 4.0)])
        assert await kept.load() == [newest, new]

    run(scenario)


def test_a_quiet_time_makes_nothing_forgotten_and_what_says_who_asks_is_not_asked(tmp_path):
    warming = ONE_BY_ONE | {"remember": 3, "remember_dir": str(tmp_path)}

    async def scenario():
        first = Shop(warming=warming)
        async with first.perf.running():
            await visit(first, lang=3, b=2)
        before = (tmp_path / "app.warming").read_bytes()
        for _ in range(3):  # an app that is started again and again, and asked for nothing
            async with Shop(warming=warming).perf.running():
                pass
        assert (tmp_path / "app.warming").read_bytes() == before
        # By now that field is a credential.
        later = Shop(warming=warming, cache={"credentials": ["accept-language"]})
        async with later.perf.running():
            assert paths(later) == ["/b"]

    run(scenario)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"1\t[]\nx\ty\n", b"nan\t" + b"[" * 9_999, b"5"]
)
def test_a_file_of_garbage_is_as_good_as_none(tmp_path, content):
    async def scenario():
        (tmp_path / "app.warming").write_bytes(content)
        kept = FileHottest(tmp_path, service="app", asks_max=2)
        assert await kept.load() == []
        await kept.save([(ask_of("http://a/x", base=None), 1.0)])
        assert len(await kept.load()) == 1

    run(scenario)


def test_a_disk_that_takes_nothing_is_told_once_and_harms_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("no directory")
    warming = {"remember": 3, "remember_dir": str(tmp_path / "file" / "kept")}
    shop = Shop(warming=warming)

    async def scenario():
        for _ in range(2):
            async with shop.perf.running():
                await visit(shop, a=1)

    run(scenario)
    told = [record for record in caplog.records if "could not be kept" in record.getMessage()]
    assert len(told) == 1


def test_a_place_for_what_is_remembered_is_needed():
    with pytest.raises(SettingsError, match=r"warming.remember: needs warming.remember_dir"):
        install(Starlette(), Settings(warming={"remember": 10}))


def test_one_of_the_processes_that_share_a_cache_warms_it(redis_server, monkeypatch):
    monkeypatch.setattr("perf_middleware.caching.warming.runtime.TURN_EVERY_S", 0.02)
    settings = {
        "warming": {"urls": ["/a", "/b"]},
        "redis": redis(redis_server, namespace="turns"),
    }

    async def scenario():
        first, second = Shop(**settings), Shop(**settings)
        async with second.perf._resources.opened():
            async with first.perf.running():
                assert sorted(paths(first)) == ["/a", "/b"]
                await until(lambda: first.cache.shared.stored == 2)
                await second.perf._resources.make_ready({})  # it is not kept waiting
                assert (second.figures["runs"], second.figures["turn"]) == (0, False)
                assert "; hit; " in (await second.get("/a")).header("cache-status")
                assert second.calls == []
            # The first has stopped: the second goes on, and finds all of it fresh.
            await until(lambda: second.figures["runs"] == 1)
            last = second.figures["last_run"]
            assert (last["cause"], last["fresh"], last["warmed"]) == ("turn", 2, 0)
            assert second.calls == []

    run(scenario)


def test_what_redis_has_is_renewed_where_it_is_not_fresh_for_long_enough(redis_server):
    shop = Shop(
        warming={"urls": ["/a"]},
        redis=redis(redis_server, namespace="renewed"),
    )

    async def scenario():
        async with shop.perf.running():
            await until(lambda: shop.cache.shared.stored == 1)
            warming, ask = shop.cache.warmer.warming, ask_of("http://shop.example/a", base=None)
            assert (await warming.ask(ask)).outcome == "fresh"
            assert (await warming.ask(ask, margin_us=70_000_000)).outcome == "warmed"
            assert paths(shop) == ["/a", "/a"]

    run(scenario)


def test_while_redis_is_away_each_process_warms_its_own_memory():
    settings = {
        "warming": {"urls": ["/a"], "remember": 3},
        "redis": {"url": "redis://127.0.0.1:1", "connect_timeout_s": 0.05},
    }

    async def scenario():
        for _ in range(2):
            shop = Shop(**settings)
            async with shop.perf.running():
                assert paths(shop) == ["/a"]

    run(scenario)


def test_what_all_processes_were_asked_for_most_is_kept_in_redis(redis_server):
    settings = {
        "warming": ONE_BY_ONE | {"remember": 2},
        "redis": redis(redis_server, namespace="kept"),
        "cache": {"share": True},
    }

    async def scenario():
        one, two = Shop(**settings), Shop(**settings)
        async with one.perf.running(), two.perf.running():
            await visit(one, a=4, b=5, c=1)
            await visit(two, a=4)
        later = Shop(**settings)
        async with later.perf.running():
            last = later.figures["last_run"]
            assert (last["planned"], last["fresh"] + last["warmed"]) == (2, 2)
            kept = await later.cache.warmer.warming._hottest.load()
            assert [ask.path for ask in kept] == [b"/a", b"/b"]

    run(scenario)

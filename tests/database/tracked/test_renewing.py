"""What a tracked answer is renewed by, and what becomes known only while the app runs."""

import asyncio
import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, text, update

from perf_middleware import CacheSettings, Settings, install
from perf_middleware.caching.rules import CachePolicy
from perf_middleware.tracking_parts import ALONE
from tests.database.tracked.shop import Author, Book, Shop, is_hit, serving


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


def kept(shop, path):
    (stored,) = [entry for entry in shop.perf.cache.store.all() if entry.target.endswith(path)]
    return stored


def test_a_refresh_that_the_app_confirms_depends_on_both_reads(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/edition")
            assert "db:t:authors" not in kept(shop, b"/edition").tags
            assert is_hit((await shop.get("/edition"))[1])  # and asks the app behind the answer
            assert shop.calls == ["/edition"] * 2
            assert {"db:t:books", "db:t:authors"} <= set(kept(shop, b"/edition").dependencies)
            for table in (Author, Book):
                await shop.get("/edition")
                async with shop.perf.database.engine().begin() as connection:
                    await connection.execute(insert(table), [{"id": 9}])
                assert shop.perf.cache.store.responses == 0

    run(main())


def test_a_commit_during_a_refresh_wins(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            await shop.get("/edition")
            await shop.put("/books/1/flush/New")
            assert (await shop.get("/edition"))[0] == "New"
            assert (await shop.get("/edition"))[0] == "New"
            assert kept(shop, b"/edition").body == b'"New"'

    run(main())


def test_a_trigger_that_comes_through_the_engine_is_noticed(url):
    async def main():
        async with serving(Shop(url)) as (shop,):
            async with shop.perf.database.engine().begin() as connection:
                await connection.execute(
                    text(
                        "create trigger renamed after update on authors begin "
                        "update books set title = new.name; end"
                    )
                )
            async with asyncio.timeout(120):
                while shop.perf.status()["tracking"]["relations"] != {"main": "known"}:
                    await asyncio.sleep(0.001)
            await shop.get("/books")
            assert is_hit((await shop.get("/books"))[1])
            async with shop.perf.database.engine().begin() as connection:
                await connection.execute(update(Author).values(name="Both"))
            assert (await shop.get("/books"))[0] == ["Both", "Both"]

    run(main())


def test_known_triggers_are_vouched_for(url):
    async def main():
        shop = Shop(url, tracking={"known_triggers": ["stamped"]})
        async with serving(shop):
            async with shop.perf.database.engine().begin() as connection:
                await connection.execute(
                    text("create trigger stamped after update on books begin select 1; end")
                )
            await shop.perf.database.read_relations()
            await shop.get("/authors")
            await shop.put("/books/1/flush/New")
            assert is_hit((await shop.get("/authors"))[1])

    run(main())


def test_where_no_rule_is_tracked_nothing_is_looked_at(url):
    async def main():
        shop = Shop(url, cache={"enabled": False})
        async with serving(shop):
            await shop.put("/books/1/flush/New")
            picture = shop.perf.status()["tracking"]
            assert picture["active"] is False
            assert picture["commits"] == 0

    run(main())


def test_a_process_that_only_writes_may_be_told_to_track(url):
    async def main():
        shop = Shop(url, cache={"enabled": False}, tracking={"enabled": True})
        async with serving(shop):
            commits = shop.perf.status()["tracking"]["commits"]
            await shop.put("/books/1/flush/New")
            assert shop.perf.status()["tracking"]["commits"] == commits + 1

    run(main())


def test_a_transaction_that_was_begun_before_tracking_means_all_tables(url):
    async def main():
        shop = Shop(url, cache={"enabled": False})
        tracking, told = shop.perf.database.tracked.tracking, []
        tracking._on_commit = told.append
        async with serving(shop), shop.perf.database.engine().connect() as connection:
            await connection.execute(update(Book).values(title="New"))
            tracking.activate()
            await connection.commit()
            assert [repr(tables) for tables in told] == ["ALL_TABLES"]
            await connection.execute(update(Book).values(title="Newer"))
            await connection.commit()
            assert len(told) == 2

    run(main())


def test_several_workers_that_share_no_cache_are_told(url, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("perf_middleware.bundle.Bundle._has_siblings", lambda self: True)
    shop = Shop(url)
    with TestClient(shop.app):
        assert shop.perf.status()["tracking"]["findings"] == [ALONE]
    assert ALONE in caplog.text
    assert "could not be read" not in caplog.text
    assert install(FastAPI(), Settings()).status()["tracking"]["findings"] == []


def test_a_tracked_rule_has_an_upper_bound_and_lets_clients_ask_each_time():
    rule = CachePolicy(name="r", tracked=True)
    assert (rule.ttl_s, rule.tell_clients) == (86_400, b"no-cache")
    own = CachePolicy(name="r", tracked=True, ttl_s=5, private_by=("cookie:id",))
    assert (own.ttl_s, own.tell_clients) == (5, b"private, no-cache")
    with pytest.raises(ValueError, match="contradict"):
        CachePolicy(name="r", tracked=True, bypass=True)
    (pair,) = CacheSettings(rules=[{"path": "/a", "tracked": True}]).policies()
    assert pair[1].tracked

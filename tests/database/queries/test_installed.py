"""Through `install`: the query cache beside tracked answers, the value cache and Redis."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from perf_middleware import Settings, cache_response, install
from perf_middleware.database.queries import reasons
from tests.database.queries.stage import Base, Owner, run
from tests.database.real_postgres import postgres
from tests.driving import ask, http_scope

DOCS = Path(__file__).parents[3] / "docs"


def installed(url, **sections):
    """An app with a tracked answer that is made of a cached query."""
    calls = []

    @cache_response(tracked=True)
    async def names(request):
        calls.append(request.url.path)
        perf = request.app.state.perf
        async with perf.database.session() as session:
            found = await perf.database.queries.execute(session, select(Owner.name))
            return JSONResponse(found.scalars().all())

    app = Starlette(routes=[Route("/names", names)])
    perf = install(app, Settings(**{"database": {"url": url}} | sections))
    return app, perf, calls


async def prepared(perf):
    async with perf.database.engine().begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await perf.database.read_relations()


async def write(perf, number):
    async with perf.database.session() as session:
        await session.execute(insert(Owner).values(id=number, name=f"n{number}", kind="owner"))


def test_an_answer_made_of_a_hit_depends_on_the_same_tables(nothing_set, tmp_path):
    async def main():
        app, perf, calls = installed(f"sqlite:///{tmp_path}/app.db", tracking={"enabled": True})

        async def get():
            answer = await ask(app, http_scope("/names"))
            return answer.json(), answer.header("cache-status")

        async with perf.running():
            await prepared(perf)
            assert (await get())[0] == []
            await perf.cache.purge(everything=True)
            assert (await get())[0] == []  # this answer is made of a hit
            assert "; hit" in (await get())[1]
            assert perf.status()["tracking"]["queries"]["hits"] == 1
            for number in (1, 2):
                await write(perf, number)
                assert len((await get())[0]) == number
            assert len(calls) == 4
            families = {family.name for family in perf.metrics.families()}
            assert "perf_query_cache_hits" in families

    run(main())


def test_on_postgresql_main_is_cached_and_its_replica_is_not(nothing_set):
    async def main(url):
        database = {"url": url, "replica_url": url}
        _, perf, _ = installed(url, database=database, tracking={"enabled": True})
        async with perf.running():
            await prepared(perf)
            for name in ("main", "replica", "main", "replica"):
                async with perf.database.session(name) as session:
                    await perf.database.queries.execute(session, select(Owner.name))
            status = perf.database.queries.status()
            assert (status["hits"], status["stored"]) == (1, 1)
            assert status["bypassed"] == {reasons.UNTRACKED: 2}
            replica = perf.database.session("replica")

            async def names(session):
                return list(await session.scalars(select(Owner.name)))

            async with replica as session:

                async def from_a_closure():
                    return await names(session)

                await perf.database.queries.get_or_execute("n", from_a_closure, 60)
            assert perf.database.queries.status()["unkept"] == {reasons.REPLICA: 1}

    with postgres() as url:
        run(main(url))


@pytest.mark.parametrize("section", ["memo", "tracking"])
def test_switched_off_it_executes(nothing_set, tmp_path, section):
    async def main():
        _, perf, _ = installed(f"sqlite:///{tmp_path}/app.db", **{section: {"enabled": False}})
        async with perf.running():
            async with perf.database.engine().begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            for _ in range(2):
                async with perf.database.session() as session:
                    await perf.database.queries.execute(session, select(Owner.name))
            assert perf.database.queries.status()["bypassed"] == {reasons.OFF: 2}

    run(main())


def test_where_others_would_write_unheard_only_what_has_a_ttl_is_kept(
    nothing_set, tmp_path, caplog
):
    async def main():
        _, perf, _ = installed(f"sqlite:///{tmp_path}/app.db", redis={"url": "redis://127.0.0.1:1"})

        async def seven():
            return 7

        async with perf.running():
            get = perf.database.queries.get_or_execute
            assert [await get("seven", seven, ttl) for ttl in (None, 60)] == [7, 7]
            await asyncio.sleep(0)
        status = perf.database.queries.status()
        assert status["unkept"] == {reasons.DEAF: 1}
        assert [r for r in caplog.records if "tracking.enabled" in r.getMessage()]

    run(main())


def test_an_app_that_ends_at_once_leaves_no_connection_behind(nothing_set, tmp_path):
    """The first use has the relations read in the background."""

    async def seven():
        return 7

    async def main(steps):
        _, perf, _ = installed(f"sqlite:///{tmp_path}/app.db")
        async with perf.running():
            assert await perf.database.queries.get_or_execute("seven", seven, 60) == 7
            for _ in range(steps):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert perf.database.tracked._reading == set()

    for steps in range(12):
        run(main(steps))


def test_each_reason_is_described():
    page = (DOCS / "query-cache.md").read_text(encoding="utf-8")
    missing = [each for each in (*reasons.BYPASSES, *reasons.UNKEPT) if f"`{each}`" not in page]
    assert missing == []

"""Settings of writes from outside, and what an app makes of them."""

import pytest
from starlette.applications import Starlette

from perf_middleware import Settings, install
from perf_middleware.database.outside.settings import OutsideSettings
from perf_middleware.errors import SettingsError
from tests.database.outside.listening import Heard, psql

ELSEWHERE = "postgresql://u:secret@elsewhere/x"


@pytest.mark.parametrize(
    "name", ["orders", "shop.Orders", 'shop."Odd ""Name"" $1"', '"a.b"', "größe", "a$1"]
)
def test_names_of_tables_are_as_in_sql(name):
    settings = OutsideSettings(tables=[name], tables_except=[name])
    assert settings.triggers("shop").tables == (name,)


@pytest.mark.parametrize("name", ["", "a b", "a.b.c", '"a', "a'; drop", "1a", 'a"b"', '"a\n"'])
def test_what_is_no_name_of_a_table_stops_the_start(name):
    with pytest.raises(ValueError, match="is no name of a table"):
        OutsideSettings(tables=[name])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        pytest.param({}, "set database.url or outside.url", id="no database"),
        pytest.param({"database": {"url": "sqlite://"}}, "needs PostgreSQL", id="another one"),
    ],
)
def test_without_postgresql_nobody_listens_and_the_start_says_so(settings, why):
    with pytest.raises(SettingsError, match=why):
        install(Starlette(), Settings(outside={"listen": True}, **settings))


def test_only_postgresql_is_taken_to_listen_to():
    with pytest.raises(SettingsError, match="only PostgreSQL tells of writes"):
        Settings(outside={"url": "sqlite:///secret.db"})


def test_where_nobody_listens_nothing_is_opened_and_the_sql_is_there_all_the_same():
    perf = install(Starlette(), Settings(service="shop", database={"url": ELSEWHERE}))
    assert "outside writes" not in perf.status()["resources"]
    assert "perf_middleware_written_shop" in perf.database.triggers()
    assert "array['items']" in perf.database.triggers(["items"])
    assert "drop function" in perf.database.triggers(drop=True)
    assert not any("outside" in family.name for family in perf.metrics.families())


def test_without_postgresql_there_are_no_triggers():
    perf = install(Starlette(), Settings(database={"url": "sqlite://"}))
    with pytest.raises(RuntimeError, match="only PostgreSQL"):
        perf.database.triggers()


def test_services_that_share_a_redis_listen_together():
    settings = Settings(
        service="web", database={"url": ELSEWHERE}, redis={"url": "redis://x", "namespace": "shop"}
    )
    perf = install(Starlette(), settings)
    assert perf.database.outside.status()["channel"] == "perf_middleware_written_shop"
    assert perf.database.outside.status()["listens_for"] == "all processes"
    alone = install(Starlette(), Settings(database={"url": ELSEWHERE}))
    assert alone.database.outside.status()["listens_for"] == "this process"
    apart = Settings(
        database={"url": ELSEWHERE}, redis={"url": "redis://x"}, cache={"share": False}
    )
    listens_for = install(Starlette(), apart).database.outside.status()["listens_for"]
    assert listens_for == "this process"


def test_in_an_app_it_is_a_resource_with_figures(run, database):
    async def main():
        settings = Settings(
            service="inapp",
            database={"url": database},
            outside={"listen": True, "tables": ["outside_in_app"]},
        )
        perf = install(Starlette(), settings)
        heard = perf.database.outside.on_write = Heard()
        async with psql(database) as other:
            await other.execute("create table outside_in_app (id int)")
            async with perf.running():
                assert await perf.database.install_triggers() == ()
                resource = perf.status()["resources"]["outside writes"]
                assert (resource["state"], resource["detail"]["state"]) == ("open", "listening")
                await heard.everything()
                await other.execute("insert into outside_in_app values (1)")
                await heard.until(lambda _: heard.names() == "outside_in_app")
                figures = {f.name: next(iter(f.points)).value for f in perf.metrics.families()
                           if f.name.startswith("perf_database_outside_")}  # fmt: skip
                assert figures["perf_database_outside_listening"] == 1
                assert figures["perf_database_outside_notifications"] >= 1
            assert perf.status()["resources"]["outside writes"]["state"] == "closed"
            await other.execute(perf.database.triggers(drop=True))

    run(main())


def test_an_app_starts_without_and_says_that_writes_are_not_heard(run, database):
    async def main():
        settings = Settings(
            database={"url": database},
            outside={"listen": True, "url": "postgresql://u:secret@127.0.0.1:1/x"},
        )
        perf = install(Starlette(), settings)
        async with perf.running():
            resource = perf.status()["resources"]["outside writes"]
            assert resource["state"] == "degraded"
            assert "postgresql://127.0.0.1:1/x" in resource["reason"]
            assert "secret" not in str(perf.status())

    run(main())

"""On a real PostgreSQL: what is written past the app is heard, and nothing is missed unknown."""

import asyncio
import logging

import pytest

from perf_middleware.database.outside.names import lock_of
from perf_middleware.database.outside.runtime import Times
from perf_middleware.database.outside.runtime.connection import (
    CannotListenError,
    ListenConnection,
)
from perf_middleware.database.outside.triggers import Triggers
from perf_middleware.database.tables.touched import ALL_TABLES
from perf_middleware.errors import OutsideWritesError
from tests.database.outside.listening import QUICK, Heard, Line, listening, psql
from tests.database.pool.pooler import TransactionPooler

ODD = '"Odd.one"."a ""quoted"", \'long\' name; -- $perf$ größer %s {x} \\ $3"'
TABLES = """
    create table items (id int primary key, name text);
    create table parts (id int, item int references items on delete cascade);
    create table events (id int) partition by range (id);
    create table events_old partition of events for values from (0) to (1000);
    create table animals (id int);
    create table cats (lives int) inherits (animals);
    create schema "Odd.one";
    create table ODD (id int);
    create table fence (id int);
    create view item_names as select name from items;
"""


@pytest.fixture(scope="module", autouse=True)
def tables(database):
    async def make():
        async with psql(database) as connection:
            await connection.execute("drop schema public cascade; create schema public")
            await connection.execute('drop schema if exists "Odd.one" cascade')
            await connection.execute(TABLES.replace("ODD", ODD))
            await connection.execute(Triggers(namespace="shop").sql())

    asyncio.run(make())


async def heard_of(database, *statements):
    """What is handed over for statements of somebody else, and how many notifications."""
    async with listening(database) as (outside, heard), psql(database) as other:
        await heard.everything()
        for statement in statements:
            await other.execute(statement)
        await other.execute("insert into fence values (1)")
        await heard.until(lambda _: "fence" in heard.names())
        return heard.names(without="fence"), outside.status()["notifications"] - 1


@pytest.mark.parametrize(
    ("statements", "names", "notifications"),
    [
        pytest.param(["insert into items values (1)"], "items", 1, id="insert"),
        pytest.param(["update items set name = 'b'"], "items", 1, id="update"),
        pytest.param(["begin", "insert into items values (2)", "rollback"], "", 0, id="rollback"),
        pytest.param(
            ["begin", "insert into cats values (1)", "savepoint s", "insert into items values (3)",
             "rollback to s", "commit"], "animals cats", 1, id="a savepoint taken back",
        ),
        pytest.param(
            ["begin", "savepoint s", "insert into items values (3)", "release s", "commit"],
            "items", 1, id="a savepoint released",
        ),
        pytest.param(
            ["begin", *["update items set name = 'c'"] * 5, "commit"], "items", 1,
            id="one notification for a transaction",
        ),
        pytest.param(
            ["insert into items select generate_series(10000, 19999)"], "items", 1,
            id="10,000 rows, one notification",
        ),
        pytest.param(
            ["insert into items values (3) on conflict (id) do update set name = 'd'"],
            "items", 1, id="upsert",
        ),
        pytest.param(
            ["with gone as (delete from parts returning item) insert into cats table gone"],
            "animals cats parts", 2, id="a CTE that writes",
        ),
        pytest.param(["delete from items where id = 1"], "items parts", 2, id="a cascade"),
        pytest.param(["truncate items cascade"], "items parts", 2, id="truncate"),
        pytest.param(["insert into events values (1)"], "events events_old", 1, id="partitioned"),
        pytest.param(["insert into events_old values (1)"], "events events_old", 1, id="its part"),
        pytest.param(["update animals set id = 2"], "animals cats", 1, id="inherited"),
        pytest.param(
            [f"insert into {ODD} values (1)"],
            "odd.one.a \"quoted\", 'long' name; -- $perf$ größer %s {x} \\ $3", 1, id="odd names",
        ),
        pytest.param(
            ["do $$ begin insert into items values (4); end $$"], "items", 1, id="in a block"
        ),
        pytest.param(
            ["/*perf_middleware=shop:fleet*/ insert into items values (5)"], "", 0,
            id="what reaches all by itself",
        ),
        pytest.param(
            ["/*perf_middleware=shop:beef*/ insert into items values (6)"], "items", 1,
            id="another process of ours, without Redis",
        ),
        pytest.param(
            ["/*perf_middleware=blog:fleet*/ insert into items values (7)"], "items", 1,
            id="another namespace",
        ),
        pytest.param(
            ["select '/*perf_middleware=shop:fleet*/'; insert into items values (8)"], "items", 1,
            id="the mark anywhere else",
        ),
    ],
)  # fmt: skip
def test_a_write_from_outside_is_heard_once_it_is_committed(
    run, database, statements, names, notifications
):
    async def main():
        assert await heard_of(database, *statements) == (names, notifications)

    run(main())


def test_copy_is_heard(run, database):
    async def main():
        async with listening(database) as (_, heard), psql(database) as other:
            await heard.everything()
            await other.copy_records_to_table("animals", records=[(n,) for n in range(500)])
            await heard.until(lambda _: "animals" in heard.names())

    run(main())


def test_what_this_process_has_purged_itself_is_not_purged_again(run, database):
    async def main():
        async with listening(database) as (outside, heard), psql(database) as other:
            await heard.everything()
            await other.execute(outside.marked("insert into items values (20)"))
            await other.execute("insert into fence values (1)")
            await heard.until(lambda _: heard.names() == "fence")
            assert outside.status()["own"] == 1

    run(main())


def test_the_mark_says_who_purges():
    async def main():
        reaches_all = True
        outside, _ = made(shares=lambda: reaches_all)
        assert outside.marked("delete from a") == "delete from a"  # it is not open
        outside._is_open, outside._mark_of_process = True, "/*of the process*/"
        assert outside.marked("delete from a") == "/*perf_middleware=shop:fleet*/ delete from a"
        reaches_all = False
        assert outside.marked("delete from a") == "/*of the process*/ delete from a"
        assert outside.marked("/*+ SeqScan(a) */ delete from a").startswith("/*+")

    def made(shares):
        from perf_middleware.database.outside.runtime import OutsideWrites
        from perf_middleware.database.urls import read_url

        url = read_url("postgresql://u@localhost/x")
        return OutsideWrites(url, triggers=Triggers(namespace="shop"), shares=shares), None

    asyncio.run(main())


# --- who listens ------------------------------------------------------------------------------


def backends(name="perf_middleware: listens"):
    return f"""
        from pg_stat_activity where datname = current_database() and application_name = '{name}'
    """


def test_of_several_processes_one_listens_and_another_takes_over(run, database):
    async def main():
        async with (
            psql(database) as other,
            listening(database, shares=lambda: True) as (first, heard),
            listening(database, shares=lambda: True) as (second, heard_too),
        ):
            await heard.everything()
            assert (first.is_listening, second.is_listening) == (True, False)
            assert second.status()["state"] == "waiting"
            await other.execute("insert into items values (30)")
            await heard.until(lambda _: "items" in heard.names())
            await first.close()
            await heard_too.everything()
            await other.execute("insert into cats values (31)")
            await heard_too.until(lambda _: "cats" in heard_too.names())
            assert (heard.names(), heard_too.names()) == ("items", "animals cats")

    run(main())


def test_who_is_cut_off_purges_everything_when_it_listens_again(run, database):
    async def main():
        async with psql(database) as other, listening(database) as (outside, heard):
            await heard.everything()
            await other.execute(f"select pg_terminate_backend(pid) {backends()}")
            await heard.everything(times=2)
            await other.execute("insert into items values (40)")
            await heard.until(lambda _: "items" in heard.names())
            assert outside.status()["connections"] == 2

    run(main())


def test_with_two_of_them_whoever_is_cut_off_one_listens_again(run, database):
    async def main():
        told = Heard()
        async with (
            psql(database) as other,
            listening(database, shares=lambda: True, on_write=told) as (first, _),
            listening(database, shares=lambda: True, on_write=told) as (second, _),
        ):
            await told.everything()
            await other.execute(f"select pg_terminate_backend(pid) {backends()}")
            await told.everything(times=2)
            await other.execute("insert into items values (41)")
            await told.until(lambda _: "items" in told.names())
            assert first.is_listening + second.is_listening == 1

    run(main())


def test_one_who_listens_and_says_nothing_is_put_aside(run, database, caplog):
    async def main():
        times = Times(**{**vars_of(QUICK), "silent_s": 0.5})
        async with psql(database) as silent:
            await silent.fetch("select pg_advisory_lock($1)", lock_of("shop"))
            async with listening(database, shares=lambda: True, times=times) as (outside, heard):
                assert outside.status()["state"] == "waiting"
                await heard.everything()
                assert outside.status()["ousted"] == 1
        assert "has been silent for" in caplog.text

    run(main())


def vars_of(times):
    return {name: getattr(times, name) for name in times.__slots__}


def test_a_server_that_says_nothing_any_more_is_found_out(run, database):
    async def main():
        times = Times(**{**vars_of(QUICK), "answer_s": 0.5, "look_s": 3_600.0})
        async with (
            Line(database) as line,
            psql(database) as other,
            listening(line.url, times=times) as (outside, heard),
        ):
            await heard.everything()
            line.swallow()
            await other.execute("insert into items values (50)")  # which nobody hears
            line.flow_for_new_ones()
            await heard.everything(times=2)
            assert outside.status()["connections"] >= 2

    run(main())


def test_a_server_that_is_started_again_is_listened_to_again(run, database, caplog):
    async def main():
        changes = []
        async with (
            Line(database) as line,
            psql(database) as other,
            listening(line.url) as (outside, heard),
        ):
            outside.on_change = lambda is_up, why: changes.append((is_up, bool(why)))
            await heard.everything()
            line.accepts = False
            line.cut()
            while (False, True) not in changes:
                await asyncio.sleep(0.01)
            assert outside.status()["state"] == "trying"
            await other.execute("insert into items values (51)")  # which nobody hears
            line.accepts = True
            await heard.everything(times=2)
            assert changes[-1] == (True, False)
        assert "writes from outside are not heard: " in caplog.text

    run(main())


def test_while_redis_is_away_nobody_listens_who_could_not_tell_the_others(run, database):
    async def main():
        up = {"is_up": False}
        tasks_open = listening(database, shares=lambda: up["is_up"])
        with pytest.raises(OutsideWritesError, match="Redis is away"):
            async with tasks_open:
                pass
        up["is_up"] = True
        async with listening(database, shares=lambda: up["is_up"]) as (outside, heard):
            await heard.everything()
            up["is_up"] = False
            while outside.is_listening:
                await asyncio.sleep(0.01)
            up["is_up"] = True
            await heard.everything(times=2)

    run(main())


# --- what cannot be ---------------------------------------------------------------------------


def test_through_a_pooler_nobody_listens_and_the_reason_says_what_to_set(run, database):
    async def main():
        async with TransactionPooler(database) as pooler:
            with pytest.raises(OutsideWritesError, match=r"pooler.*set outside\.url"):
                async with listening(pooler.url):
                    pass

    run(main())


def test_a_server_that_does_not_let_us_in_is_told_with_its_own_words(run, database):
    async def main():
        url = database.replace("/perf_outside", "/not_there")
        with pytest.raises(OutsideWritesError, match='"not_there" does not exist'):
            async with listening(url):
                pass

    run(main())


class Said:
    """A connection that says this of its server."""

    def __init__(self, **facts):
        self._facts = {"pid": 1, "is_copy": False, "version": 18, **facts}

    def add_termination_listener(self, _listener): ...
    def get_server_pid(self):
        return 1

    def transaction(self):
        return asyncio.Lock()

    async def fetchrow(self, _statement):
        return self._facts

    async def add_listener(self, _channel, _callback): ...
    async def execute(self, _statement): ...


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        pytest.param({"version": 11}, "PostgreSQL 11, and 12 or newer", id="an old server"),
        pytest.param({"is_copy": True}, "read-only copy", id="a copy"),
        pytest.param({"pid": 2}, "pooler", id="a pooler"),
    ],
)
def test_where_nobody_can_listen_it_is_said_why(facts, why):
    async def main():
        with pytest.raises(CannotListenError, match=why):
            await ListenConnection(Said(**facts), answer_s=5).examine()

    asyncio.run(main())


def test_where_a_notification_does_not_arrive_it_is_said_why():
    async def main():
        connection = ListenConnection(Said(), answer_s=0.05)
        with pytest.raises(CannotListenError, match="no effect"):
            await connection.listen("channel", print, "token")

    asyncio.run(main())


# --- purging ----------------------------------------------------------------------------------


def test_what_is_heard_during_a_purge_is_one_purge_after_it(run, database):
    async def main():
        told, may_go = [], asyncio.Event()

        async def slow(tables):
            told.append(tables)
            await may_go.wait()

        async with listening(database, on_write=slow) as (outside, _), psql(database) as other:
            while not told:
                await asyncio.sleep(0.01)
            for number in range(20):
                await other.execute(f"insert into items values ({100 + number})")
                await other.execute(f"insert into animals values ({number})")
            while outside.status()["notifications"] < 40:
                await asyncio.sleep(0.01)
            may_go.set()
            while len(told) < 2:
                await asyncio.sleep(0.01)
            assert told[0] == ALL_TABLES
            assert sorted(map(str, told[1])) == ["public.animals", "public.cats", "public.items"]
            assert len(told) == 2

    run(main())


def test_a_purge_that_fails_is_tried_again_until_it_is_done(run, database, caplog):
    async def main():
        tries, done = [], asyncio.Event()

        async def fails_twice(tables):
            tries.append(tables)
            if len(tries) < 3:
                raise OSError("Redis is away")
            done.set()

        caplog.set_level(logging.CRITICAL, logger="perf_middleware.database")
        async with listening(database, on_write=fails_twice) as (outside, _):
            await done.wait()
            assert tries == [ALL_TABLES] * 3
            assert outside.status()["failures"] == 2

    run(main())

"""What ends: within its time, and whatever something else does meanwhile."""

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only, greenlet_spawn

from perf_middleware.database.runtime import Database
from perf_middleware.database.runtime.answering import Answering
from perf_middleware.database.settings import DatabaseSettings
from perf_middleware.database.tracking.runtime.purges import CommitPurges
from tests.database.tasks import Tasks


class Failing:
    """Tracked engines that cannot end; the rest of them has nothing to do."""

    def watch(self, *_given, **_named):
        pass

    forget = bind = watch

    async def read_unknown(self):
        pass

    async def end(self):
        raise OSError("a fault")


def test_databases_are_closed_though_what_tracks_them_fails_to_end(run, tmp_path):
    async def main():
        database = Database({"main": f"sqlite:///{tmp_path}/app.db", "other": "sqlite://"})
        database.instruments.tracked = Failing()
        tasks = Tasks()
        await database.open(tasks)
        with pytest.raises(OSError, match="a fault"):
            await database.close()
        for name in database.names:
            with pytest.raises(RuntimeError, match="not open"):
                database.engine(name)
        await tasks.stop()

    run(main())


def test_what_keeps_a_database_in_memory_is_not_waited_for_without_end(run, caplog):
    async def main():
        database = DatabaseSettings(url="sqlite://", finish_s=0.05).make_database()
        tasks = Tasks()
        await database.open(tasks)
        dialect = database._databases["main"]._keeper.dialect
        close, left = dialect.do_close, []

        def never_closed(connection):
            left.append(connection)
            await_only(asyncio.Event().wait())

        dialect.do_close = never_closed
        async with asyncio.timeout(120):
            await database.close()
        assert "did not close" in caplog.text
        await greenlet_spawn(close, *left)
        await tasks.stop()

    run(main())


class Asked:
    """A database that answers; `meanwhile` is called while it is asked."""

    def __init__(self, name, meanwhile=lambda: None):
        self.name = name
        self.asked = 0
        self._meanwhile = meanwhile

    async def find_out(self):
        self.asked += 1
        self._meanwhile()


def test_a_database_that_is_suspected_while_others_are_asked_is_asked_next(run):
    async def main():
        lost = DBAPIError("select 1", {}, OSError(), connection_invalidated=True)
        two = Asked("two")
        one = Asked("one", lambda: answering.judge("two", lost))
        answering = Answering({"one": one, "two": two})
        assert await answering.ask_all() == []
        await answering.ask_again()
        two.asked = 0
        answering.judge("one", lost)
        await answering.ask_again()
        async with asyncio.timeout(120):
            await answering.until_due(3600)  # a fixed bug: it was waited for to the end
        await answering.ask_again()
        assert two.asked == 1

    run(main())


def test_a_response_waits_for_purges_only_so_long(run, caplog):
    async def main():
        purges, over = CommitPurges(settle_s=0.05), asyncio.Event()
        purges.bind()

        async def purge(_tags):
            await over.wait()

        purges.add(purge)
        purges._on_the_loop(frozenset({"table:items"}))
        before = purges.unawaited
        async with asyncio.timeout(120):
            await purges.settle()
        assert (purges.unawaited - before, purges.is_settled) == (1, False)
        assert "a response has waited 0.05 s" in caplog.text
        over.set()
        async with asyncio.timeout(120):
            while not purges.is_settled:
                await asyncio.sleep(0.001)

    run(main())

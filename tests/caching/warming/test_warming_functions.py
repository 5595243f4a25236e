"""The app's own functions that warm: what hangs or fails takes nothing from the rest."""

import threading
from dataclasses import dataclass

import anyio
import pytest

from tests.caching.warming.shop import WordlessError, paths, run, shop_of, until


def test_a_function_that_hangs_holds_up_nothing_else_and_is_told():
    shop = shop_of(urls=["/a"], wait_s=0)
    stuck = []

    @shop.cache.warmer
    async def first():
        yield "/of-first"
        stuck.append("first")
        await anyio.sleep_forever()

    @shop.cache.warmer
    async def second():
        return ["/of-second"]

    async def scenario():
        async with shop.perf.running():
            await until(lambda: paths(shop) == ["/a", "/of-first", "/of-second"])
            assert (stuck, shop.figures["runs"]) == (["first"], 0)
            # At its end the run says whom it was waiting for.
            (scope,) = shop.cache.warmer.warming._scopes
            scope.cancel()
            await until(lambda: shop.figures["runs"] == 1)
            last = shop.figures["last_run"]
            assert (last["planned"], last["warmed"], last["failed"]) == (4, 3, 1)
            assert "first: was not over when the run was" in last["problems"][0]

    run(scenario)


def test_what_is_called_needs_no_hash():
    @dataclass
    class Pages:
        count: int

        def __call__(self):
            return [f"/{number}" for number in range(self.count)]

    shop = shop_of()
    shop.cache.warmer(Pages(2))

    async def scenario():
        async with shop.perf.running():
            assert paths(shop) == ["/0", "/1"]

    run(scenario)


def test_a_plain_function_waits_in_a_thread_and_not_on_the_event_loop():
    shop = shop_of(wait_s=0)
    began, goes_on, seen = threading.Event(), threading.Event(), []

    @shop.cache.warmer
    def popular():
        seen.append(threading.current_thread() is threading.main_thread())
        began.set()
        goes_on.wait()
        yield "/b"

    async def scenario():
        async with shop.perf.running():
            await until(began.is_set)  # on the event loop nobody would come to this
            assert (await shop.get("/a")).status == 200
            goes_on.set()
            await until(lambda: shop.figures["runs"] == 1)
            assert (seen, paths(shop)) == ([False], ["/a", "/b"])

    try:
        run(scenario)
    finally:
        goes_on.set()


def test_what_cannot_be_asked_for_takes_nothing_from_the_rest():
    shop = shop_of()

    @shop.cache.warmer
    async def mixed():
        for url in ("/a", "/ä", None, "ftp://a/b", 3, "/b"):
            yield url

    async def scenario():
        async with shop.perf.running():
            last = shop.figures["last_run"]
            assert (paths(shop), last["warmed"], last["failed"]) == (["/a", "/b"], 2, 4)
            assert "escape what is not ASCII" in last["problems"][0]

    run(scenario)


def test_functions_that_never_end_are_listened_to_for_as_long_as_there_is_room():
    shop = shop_of(asks_max=5, concurrency=64)

    @shop.cache.warmer
    async def same():
        while True:
            yield "/same"

    @shop.cache.warmer
    def wrong():
        while True:
            yield "wrong"

    @shop.cache.warmer
    async def ever_more():
        number = 0
        while True:
            number += 1
            yield f"/{number}"

    async def scenario():
        async with shop.perf.running():
            last = shop.figures["last_run"]
            assert (len(shop.calls), last["warmed"]) == (5, 5)
            assert last["failed"] <= 6
            assert len(last["problems"]) <= 5

    run(scenario)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        anyio.get_cancelled_exc_class,
        RuntimeError(),
        WordlessError,
        BaseException("no Exception"),
        BaseExceptionGroup("of a task group", [SystemExit(3)]),
    ],
    ids=[
        "an exit",
        "a cancellation",
        "an error",
        "an error without words",
        "no Exception",
        "a group",
    ],
)
def test_no_run_and_no_start_ends_with_what_a_function_raises(error):
    shop = shop_of(urls=["/a"])

    @shop.cache.warmer
    async def broken():
        raise error() if callable(error) else error

    async def scenario():
        async with shop.perf.running():
            assert shop.figures["last_run"]["failed"] == 1
            again = await shop.cache.warmer.run()
            assert (again.fresh, again.failed) == (1, 1)

    run(scenario)

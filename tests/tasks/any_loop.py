"""Runs a test on asyncio, uvloop and trio; asks at once; waits for what will come."""

import random
import sys

import anyio
import pytest
from trio._core import _run as trio_run

LOOPS = ["asyncio", "trio", *(["uvloop"] if sys.platform != "win32" else [])]
WAITS_S_MAX = 120


class InOrder(random.Random):
    """trio runs the tasks of one turn in reverse where this gives a half or more."""

    def random(self):
        return 0.1

    def shuffle(self, tasks):  # what it does instead beside hypothesis
        tasks.reverse()  # it takes them from the end


def run_on(loop, test, *args):
    """`test` in a fresh event loop of that kind."""
    if loop == "uvloop":
        anyio.run(test, *args, backend="asyncio", backend_options={"use_uvloop": True})
    elif loop == "trio":
        was, trio_run._r = trio_run._r, InOrder()
        try:
            anyio.run(test, *args, backend="trio")
        finally:
            trio_run._r = was
    else:
        anyio.run(test, *args, backend=loop)


def on_each_loop(test):
    """The async `test`, on every kind of loop."""

    @pytest.mark.parametrize("loop", LOOPS)
    def runs(loop):
        run_on(loop, test)

    runs.__name__ = test.__name__
    runs.__doc__ = test.__doc__
    return runs


async def at_once(call, *items):
    """`call(item)` of each in a task of its own, started in order; the results in order."""
    results = [None] * len(items)

    async def one(index):
        results[index] = await call(items[index])

    async with anyio.create_task_group() as tasks:
        for index in range(len(items)):
            tasks.start_soon(one, index)
    return results


async def until(is_so):
    """Wait until it is so."""
    with anyio.fail_after(WAITS_S_MAX):
        while not is_so():
            await anyio.sleep(0.001)

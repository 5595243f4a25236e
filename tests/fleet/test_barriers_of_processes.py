"""Whoever is stopped, killed, blocked or cut off: nobody answers what was purged out of memory.

The processes are real.  A writer purges and waits; then each of them is asked.
"""

import asyncio
import itertools
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from perf_middleware.fleet.layout import message
from perf_middleware.fleet.runtime import Fleet
from tests.driving import DEADLINE_S
from tests.examples.servers import ROOT
from tests.fleet.processes import until

LEASE_S = 0.6
NAMESPACES = itertools.count()

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Worker:
    def __init__(self, process):
        self._process = process

    def send(self, command):
        self._process.stdin.write(f"{command}\n".encode())

    async def answer(self):
        async with asyncio.timeout(DEADLINE_S):
            line = await self._process.stdout.readline()
        assert line, "it has ended"
        return line.decode().strip()

    async def ask(self, command):
        self.send(command)
        return await self.answer()

    async def keep(self, what):
        assert await self.ask("leased") == "done"
        assert await self.ask(f"keep {what}") == "done"

    def signal(self, number):
        self._process.send_signal(number)

    async def stop(self):
        self.signal(signal.SIGSTOP)
        how = os.WSTOPPED | os.WNOWAIT
        await asyncio.to_thread(os.waitid, os.P_PID, self._process.pid, how)


@asynccontextmanager
async def service(server):
    """A writer in this process, and two workers with their leases."""
    namespace = f"workers{next(NAMESPACES)}"
    server.say("ZADD", f"{{{namespace}:fleet:0}}l", "-1", "-")
    writer = Fleet(server.url, namespace=namespace, timeout_s=5.0, lease_s=LEASE_S)
    writer.records("cache").on_message = lambda _body: None
    writer.ensure_kept()
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fleet.strict_worker", server.url, namespace, str(LEASE_S),
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        await until(lambda: writer.is_up)
        yield writer, *map(Worker, started)
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()
            process._transport.close()
        await writer.close()


async def write(writer):
    """What was kept before is old when this returns."""
    await writer.records("cache").purge(b"t:it", message=message("tag", "it"))
    assert await writer.heard_by_all()


async def test_no_worker_answers_what_is_old_whatever_happens_to_it(redis_server):
    async with service(redis_server) as (writer, victim, other):
        for number, fault in enumerate((nothing, stopped, blocked, cut, cut_and_stopped)):
            old = f"old{number}"
            await victim.keep(old)
            await other.keep(old)
            async with fault(victim):
                await write(writer)
                assert await other.ask("hit") == "-", fault.__name__
            assert await victim.answer() == "-", fault.__name__
            assert await victim.ask("leased") == "done"
            assert await victim.ask("hit") == "-", fault.__name__  # nor when it has heard
        await victim.keep("new")
        assert writer._hearers.barriers.results["unknown"] == 0
        victim.signal(signal.SIGKILL)
        await write(writer)
        assert await other.ask("hit") == "-"
        await other.keep("new")
        await asyncio.sleep(LEASE_S)
        await write(writer)
        listeners = redis_server.say("ZCARD", f"{{{writer.namespace}:fleet:0}}l")
        assert listeners in (b":1", b":2")  # when it was begun, and `other`: nobody waits for it
        assert await other.ask("hit") == "-"


@asynccontextmanager
async def nothing(victim):
    yield
    victim.send("hit")


@asynccontextmanager
async def stopped(victim):
    await victim.stop()
    victim.send("hit")  # read before what is told meanwhile
    yield
    victim.signal(signal.SIGCONT)


@asynccontextmanager
async def blocked(victim):
    victim.send(f"block {LEASE_S * 2}")
    assert await victim.answer() == "done"
    victim.send("hit")
    yield


@asynccontextmanager
async def cut(victim):
    assert await victim.ask("cut") == "done"
    yield
    victim.send("hit")


@asynccontextmanager
async def cut_and_stopped(victim):
    assert await victim.ask("cut") == "done"
    await victim.stop()
    victim.send("hit")
    yield
    victim.signal(signal.SIGCONT)

"""Processes of a service as the tests of faults have them: an installed app each, in one loop.

Two installs share nothing but Redis, as two processes do.
"""

import asyncio
import time
from contextlib import asynccontextmanager

from perf_middleware import Settings, install
from perf_middleware.errors import StoreUnavailableError
from tests.driving import DEADLINE_S, ask, http_scope

TIMEOUT_S = 1.0  # that Redis, or this process, is late for a moment is no fault


class Pages:
    """What all processes of a service answer from: the one truth, as a database is."""

    def __init__(self):
        self.versions = {}
        self.calls = []
        self.gate = None
        self.status = 200
        self.fields = ()
        self.lifetime = b"max-age=600"

    def now(self, path):
        return f"{path} {self.versions.get(path, 0)}".encode()

    def change(self, path):
        self.versions[path] = self.versions.get(path, 0) + 1

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        path = scope["path"]
        body = self.now(path)  # what is read, before the answer is on its way
        self.calls.append(path)
        if self.gate is not None:
            await self.gate.wait()
        headers = [(b"cache-control", self.lifetime), *self.fields]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Process:
    """One process of the service."""

    def __init__(self, pages, url, *, cache=None, app=None, **redis):
        self.pages = pages
        self.perf = install(
            app or pages,
            Settings(
                redis={"url": url, "timeout_s": TIMEOUT_S, "connect_timeout_s": 10.0, **redis},
                cache=cache or {},
                metrics={"workers": False},
                dashboard={"enabled": False},
                runtime={"enabled": False},
            ),
        )
        self.cache = self.perf.cache
        self.shared = self.cache.shared
        self.fleet = self.shared._fleet
        self.link = self.fleet.link
        self.paid = 0  # look-ups that were under way when the connection was lost
        self._find = self.shared._records.find
        self.shared._records.find = self._counted_find

    async def _counted_find(self, *place, **how):
        try:
            return await self._find(*place, **how)
        except StoreUnavailableError:
            self.paid += 1  # where it is known to be away nothing is looked up
            raise

    async def get(self, path, **scope):
        return await ask(self.perf, http_scope(path, **scope))

    async def reads(self, path, **scope):
        """The body, and whether it came without asking the app of this process."""
        before = self.pages.calls.count(path)
        answer = await self.get(path, **scope)
        assert answer.status == self.pages.status
        return answer.body, self.pages.calls.count(path) == before

    @property
    def is_up(self):
        return self.shared.is_up

    @property
    def state(self):
        return self.perf.status()["resources"]["redis"]["state"]

    def figure(self, name, **labels):
        """One number of /metrics."""
        for family in (*self.fleet.families(), *self.shared.families()):
            if family.name == name:
                for value in family.points:
                    if dict(value.labels.pairs) == labels:
                        return value.value
        raise AssertionError(f"no figure {name} {labels}")

    async def settled(self):
        """All that was to be stored until now is stored."""
        done = []

        async def note():
            done.append(True)

        assert self.shared.outbox.put(note)
        await until(lambda: done)


@asynccontextmanager
async def running(*processes, up=True):
    """The processes between start and end; `up` after they are connected."""
    if not processes:
        yield
        return
    first, *others = processes
    async with first.perf.running(), running(*others, up=up):
        if up:
            await until(lambda: first.is_up)
        yield


async def until(condition, seconds=DEADLINE_S):
    """Wait for what must become true."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not come to pass in time"
        await asyncio.sleep(0.005)


class Load:
    """Clients that ask all the time, pages known and new; every answer is checked."""

    def __init__(self, *processes, clients=8, pages=40):
        self._processes = processes
        self._clients = clients
        self._pages = pages
        self._tasks = []
        self._stopping = False
        self.answered = 0
        self.longest_s = 0.0
        self.wrong = []

    @property
    def clients(self):
        return self._clients * len(self._processes)

    async def __aenter__(self):
        for process in self._processes:
            for number in range(self._clients):
                self._tasks.append(asyncio.create_task(self._ask(process, number)))
        await self.more(2 * self.clients)
        return self

    async def __aexit__(self, *failure):
        self._stopping = True
        await asyncio.gather(*self._tasks)
        assert not self.wrong, self.wrong[:3]

    async def more(self, count):
        """After so many more answers."""
        enough = self.answered + count
        await until(lambda: self.answered >= enough)

    async def _ask(self, process, client):
        number = client
        while not self._stopping:
            number += 1
            # Every third page is new, by the name of the client: nobody else waits for it.
            path = f"/new/{id(process)}/{client}/{number}" if number % 3 == 0 else (
                f"/page/{number % self._pages}"
            )  # fmt: skip
            began_s = time.monotonic()
            try:
                answer = await process.get(path)
            except BaseException as error:
                self.wrong.append((path, repr(error)))
                raise
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            if answer.status != 200 or answer.body != process.pages.now(path):
                self.wrong.append((path, answer.status, answer.body))
            self.answered += 1
            await asyncio.sleep(0.002)  # others have their turn too

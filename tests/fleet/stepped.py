"""Two processes' caches on one event loop, and a test that decides what happens next.

            out (commands)               inbox (answers and messages, in their order)
    cache A ------------> server: real Redis ------------> cache A
    cache B ------------>    each step of    ------------> cache B
                              these arrows, and each half of an app's call, is one choice

Commands run in the real server, with the real scripts; only the way there and back is ours.  A
connection keeps the order of what goes over it, as a socket does, and nothing else is in order.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import redis

from perf_middleware.caching.middleware import ResponseCacheMiddleware
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.runtime import ResponseCache
from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet import runtime
from tests.driving import ask, http_scope
from tests.fleet.consistency import Read, Write

PLACE = "/items/1"
TAG = "item"
BOUND_S = 1_000.0  # on the clock of steps: what `drained` lets pass
NAMESPACES = itertools.count()


class Server:
    """The real one, over one connection of commands and one that hears what is published."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, protocol=2)
        self._heard = self._client.pubsub()
        self._heard.psubscribe("*")
        self._drain()
        self.links: list[SteppedLink] = []

    def run(self, words: tuple[Any, ...]) -> Any:
        """The answer, or the error; what it published is on its way to all then."""
        try:
            answer = self._client.execute_command(*words)
        except redis.ResponseError as error:
            answer = StoreRefusedError("Redis", str(error))
        return answer

    def publish(self) -> None:
        for channel, payload in self._drain():
            for link in self.links:
                if link.listens and channel in link.channels:
                    link.inbox.append(lambda link=link, c=channel, p=payload: link.on_message(c, p))

    def _drain(self) -> list[tuple[bytes, bytes]]:
        """Whatever was published before is here before the answer to this ping."""
        self._heard.ping()
        found = []
        while True:
            message = self._heard.parse_response(block=True)
            if message[0] == b"pong":
                return found
            if message[0] == b"pmessage":
                found.append((message[2], message[3]))

    def close(self) -> None:
        self._heard.close()
        self._client.close()


class SteppedLink:
    """As RedisLink, where each command and each answer waits until it is let through."""

    shown_url = why_down = "stepped"
    commands = timeouts = refusals = waiting = 0

    def __init__(self, server: Server) -> None:
        self._server = server
        server.links.append(self)
        self.is_up = self.listens = False
        self.channels: tuple[bytes, ...] = ()
        self.on_message: Any = None
        self.connected: Any = None
        self.out: deque[tuple[tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self.inbox: deque[Callable[[], None]] = deque()
        self._open: set[asyncio.Future[Any]] = set()
        self.refuses: Callable[[tuple[Any, ...]], bool] = lambda _words: False

    def server_ms(self) -> int:
        return 1_000_000

    async def command(self, *words: Any) -> Any:
        if not self.is_up:
            raise StoreUnavailableError("Redis", self.why_down)
        return await self._ask(words)

    async def get(self, key: bytes) -> Any:
        return await self.command("GET", key)

    async def get_several(self, *keys: bytes) -> Any:
        return await self.command("MGET", *keys)

    async def run(self, script: Any, keys: Any, arguments: Any) -> Any:
        if not self.is_up:
            raise StoreUnavailableError("Redis", self.why_down)
        return await self.run_script(script, keys, arguments)

    async def run_script(self, script: Any, keys: Any, arguments: Any) -> Any:
        text = script.text
        if script.name == "purge":  # slices of one, that there are some
            text = text.replace("start + 499", "start").replace("#members < 500", "#members < 1")
        return await self._ask(("EVAL", text, len(keys), *keys, *arguments))

    async def scan(self, prefix: bytes) -> Any:
        _, keys = await self.command("SCAN", 0, "MATCH", prefix + b"*", "COUNT", 10_000)
        if keys:
            yield keys

    async def _ask(self, words: tuple[Any, ...]) -> Any:
        if not self.listens:
            raise StoreUnavailableError("Redis", self.why_down)
        answer = asyncio.get_running_loop().create_future()
        self._open.add(answer)
        self.out.append((words, answer))
        return await answer

    # --- steps ----------------------------------------------------------------------------------

    def send(self) -> None:
        """The next command reaches the server, which does it at once."""
        words, answer = self.out.popleft()
        if self.refuses(words):
            told: Any = StoreRefusedError("Redis", "OOM")
        else:
            told = self._server.run(words)

        def deliver() -> None:
            self._open.discard(answer)
            if answer.done():
                return
            if isinstance(told, Exception):
                answer.set_exception(told)
            else:
                answer.set_result(told)

        self.inbox.append(deliver)  # before what the command has published itself, as Redis does
        self._server.publish()

    def deliver(self) -> None:
        """The next answer or message is read."""
        self.inbox.popleft()()

    def lose(self) -> None:
        """The connection, with all that is on its way."""
        self.is_up = self.listens = False
        self.out.clear()
        self.inbox.clear()
        lost, self._open = self._open, set()
        for answer in lost:
            if not answer.done():
                answer.set_exception(StoreUnavailableError("Redis", "lost"))

    def give_up(self, why: str) -> None:
        if self.is_up:
            self.lose()

    async def connect(self) -> None:
        self.listens = True
        with suppress(StoreUnavailableError, StoreRefusedError):
            await self.connected()
            self.is_up = True
            return
        self.lose()


class Process:
    """The cache of one process, in front of the app that all of them run."""

    def __init__(self, name: str, world: "World", namespace: str) -> None:
        self.name = name
        self.link = SteppedLink(world.server)
        fleet = runtime.Fleet("redis://stepped:1", namespace=namespace)
        on_message, connected = fleet.link.on_message, fleet.link.connected
        fleet.link = self.link
        self.link.on_message, self.link.connected = on_message, connected
        fleet.ensure_kept = lambda: None
        self.cache = ResponseCache(options=CacheOptions(default_ttl_s=300, early_refresh=0.0))
        self.cache.share(fleet)
        self.jobs = [run for run in fleet._jobs if run.__self__ is not self.cache.shared.leases]
        self.app = ResponseCacheMiddleware(world.app, cache=self.cache)
        self.connecting: asyncio.Task[None] | None = None


class World:
    """Everything; `choose` says which of the steps that are possible comes next."""

    def __init__(self, server: Server, *, places: int = 1) -> None:
        self.server = server
        server.links.clear()
        self.places = [f"{PLACE}{'/x' * n}" for n in range(places)]
        self.version = 0
        self.clock_s = 0.0
        self.writes: list[Write] = []
        self.soft: list[Write] = []
        self.reads: list[Read] = []
        self.app_calls: list[asyncio.Future[None]] = []
        self.running: list[asyncio.Task[Any]] = []
        namespace = f"stepped{next(NAMESPACES)}"
        self.a, self.b = (Process(name, self, namespace) for name in "ab")
        self._jobs: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        for process in (self.a, self.b):
            self._jobs += [asyncio.create_task(run()) for run in process.jobs]
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._jobs, *self.running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the app --------------------------------------------------------------------------------

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Reads the truth, and answers later."""
        del receive
        if scope["method"] == "PUT":
            self.version += 1
        told = self.version
        if scope["method"] == "GET":
            gate = asyncio.get_running_loop().create_future()
            self.app_calls.append(gate)
            await gate
        headers = [(b"content-type", b"text/plain"), (b"cache-groups", b'"%b"' % TAG.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%d" % told})

    # --- what clients do ------------------------------------------------------------------------

    def start(self, process: Process, what: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(self._do(process, what))
        self.running.append(task)
        return task

    async def _do(self, process: Process, what: str) -> Any:
        start_s = self.clock_s
        if what.startswith("read"):
            place = self.places[int(what[4:] or 0)]
            answer = await ask(process.app, http_scope(place))
            version = int(answer.body)
            self.reads.append(Read(place, version, start_s, self.clock_s, by=process.name))
            return version
        if what == "put":
            answer = await ask(process.app, http_scope(PLACE, method="PUT"))
            version, places = int(answer.body), {PLACE}
        else:
            version = self.version = self.version + 1
            places = await self._purge(process, what)
        writes = self.soft if what == "soft" else self.writes
        writes.append(Write(frozenset(places), version, start_s, self.clock_s, what=what))
        return version

    async def _purge(self, process: Process, by: str) -> set[str]:
        purge, places = process.cache.purge, set(self.places)
        match by:
            case "tag":
                await purge(tags=TAG)
            case "soft":
                await purge(tags=TAG, soft=True)
            case "pattern":
                await purge(pattern="/items/*")
            case "all":
                await purge(everything=True)
            case "url":
                await purge(url=PLACE)
                places = {PLACE}
        return places

    # --- steps ----------------------------------------------------------------------------------

    def possible(self) -> list[Callable[[], None]]:
        """The steps that may come next on the ways to and from the server."""
        found: list[Callable[[], None]] = []
        for link in (self.a.link, self.b.link):
            if link.out:
                found.append(link.send)
            if link.inbox:
                found.append(link.deliver)
        return found

    def answer(self) -> None:
        """The app's oldest open call is answered."""
        self.app_calls.pop(0).set_result(None)

    async def step(self, do: Callable[[], None]) -> None:
        self.clock_s += 1
        do()
        await self.settle()

    async def settle(self) -> None:
        """Until every task waits for something that only a step can bring."""
        loop: Any = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)
            if not loop._ready:
                return

    async def drained(self) -> None:
        """All that is on its way arrives; the bound has passed then."""
        await self.settle()
        while steps := self.possible():
            await self.step(steps[0])
        self.clock_s += BOUND_S + 1

    async def connect(self, *processes: Process) -> None:
        for process in processes:
            process.connecting = asyncio.create_task(process.link.connect())
            self.running.append(process.connecting)
        await self.settle()

    async def finish(self) -> None:
        """Everything that was begun ends."""
        async with asyncio.timeout(20):
            while not all(task.done() for task in self.running):
                await self.drained()
                if self.app_calls:
                    await self.step(self.answer)
                elif not self.possible():
                    await asyncio.sleep(0.005)  # a lease runs out
        await self.drained()

    async def now(self, process: Process, what: str) -> Any:
        """Do it, with all that it takes, before anything else."""
        task = self.start(process, what)
        async with asyncio.timeout(20):
            while not task.done():
                await self.drained()
                if not task.done() and self.app_calls:
                    await self.step(self.answer)
        return task.result()

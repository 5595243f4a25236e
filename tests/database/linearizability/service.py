"""The app of the check under uvicorn, on several workers, with a Redis and rows of its own."""

from __future__ import annotations

import contextlib
import signal
import uuid
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from tests.database.linearizability.distance import Distance, from_near_and_far
from tests.database.linearizability.history import Change, History, Write
from tests.database.linearizability.tables import BOOKS, GROUPS_MADE, metadata
from tests.examples.servers import ServerProcess, serving
from tests.fleet.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

START_S_MAX = 120.0
DIALECT = postgresql.dialect()
APP = "tests.database.linearizability.app:served"


class Truth:
    """The database itself, past the app and its caches."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def rows(self) -> dict[str, tuple[int, int, bool]]:
        """Version, op and whether it is there, of each row that is or was."""
        found = {}
        async with connected(self.url) as connection:
            for group in GROUPS_MADE:
                for kind, table, is_there in (
                    ("b", "books", True), ("b", "graves", False), ("l", "loans", True),
                ):  # fmt: skip
                    name = f"{table}{group.number}"
                    for row in await connection.fetch(f"SELECT id, version, op FROM {name}"):
                        key = f"{group.number}{kind}{row['id']}"
                        found[key] = (row["version"], row["op"], is_there)
        return found

    async def begun(self) -> History:
        """A history that begins with what is there."""
        by_op: dict[int, list[Change]] = {}
        for key, (version, op, is_there) in (await self.rows()).items():
            by_op.setdefault(op, []).append(Change(key, version, is_there))
        return History([Write(op, tuple(own), 0, 0, what="before") for op, own in by_op.items()])

    async def end(self, history: History) -> None:
        """What is there in the end tells of writes that had no answer."""
        for key, (version, op, _) in (await self.rows()).items():
            history.learned[op, key] = version


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[Truth]:
    """A database of its own with all rows at their first version; dropped behind the block."""
    name = f"linear_{uuid.uuid4().hex[:12]}"
    async with connected(server_url) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    try:
        async with connected(url) as connection:
            for table in metadata.sorted_tables:
                await connection.execute(str(CreateTable(table).compile(dialect=DIALECT)))
            for group in GROUPS_MADE:
                for n in range(BOOKS):
                    await connection.execute(f"INSERT INTO books{group.number} VALUES ({n}, 1, 1)")
                    await connection.execute(
                        f"INSERT INTO loans{group.number} VALUES ({n}, {n}, 1, 1)"
                    )
        yield Truth(url)
    finally:
        async with connected(server_url) as connection:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class Service:
    """Running workers, by their process ids; each is one that this test's server has started."""

    server: ServerProcess

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self._processes: dict[int, psutil.Process] = {}
        self.done: Counter[str] = Counter()

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def note(self, workers: Iterable[int]) -> None:
        """These have answered."""
        for worker in workers:
            if worker not in self._processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._processes[worker] = psutil.Process(worker)

    def dead(self) -> set[int]:
        """Those that have ended, whether or not their server has noticed."""
        return {
            worker
            for worker, process in self._processes.items()
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        }

    def kill(self, worker: int) -> None:
        """As a crash does; the server starts another one in its place."""
        self._send(worker, signal.SIGKILL)

    def stop(self, worker: int) -> None:
        """It holds its connections and does nothing, until `go_on`."""
        self._send(worker, signal.SIGSTOP)

    def go_on(self, worker: int) -> None:
        self._send(worker, signal.SIGCONT)

    def cut(self, worker: int) -> None:
        """It hears nothing of Redis any more, until `mend`."""
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = self._processes[worker].net_connections(kind="tcp")
            far = [one for one in connections if one.raddr and one.raddr.port == self.redis_port]
            self._distance.cut({one.laddr.port for one in far})
            self.done["cut"] += bool(far)

    def mend(self) -> None:
        self._distance.mend()

    @property
    def redis_port(self) -> int:
        return self._distance.port

    def _send(self, worker: int, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._processes[worker].send_signal(number)
            self.done[number.name] += 1

    def let_go(self) -> None:
        """None of them is stopped any more."""
        for worker in self._processes:
            self.go_on(worker)

    def end(self) -> None:
        """None of them stays: also not one that was stopped, or left by its server."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def cpu_s(self) -> float:
        """CPU seconds of the server and its workers so far, of those that are alive."""
        total = 0.0
        for process in self._processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextmanager
def service(
    truth: Truth, directory: Path, *modes: str, workers: int, **env: str
) -> Iterator[Service]:
    """The app with these caches, on so many workers."""
    with ExitStack() as opened:
        redis = RedisServer(directory / "redis")
        opened.callback(redis.stop)
        distance = opened.enter_context(from_near_and_far(redis.start().port))
        settings = {
            "LINEAR_MODES": ",".join(modes),
            "PERFORMANCE_REDIS_URL": f"redis://127.0.0.1:{distance.port}/0",
            # A process without a processor for so long takes its Redis for lost: what it writes
            # then is told to nobody in time, which is beyond what is promised.
            "PERFORMANCE_REDIS_TIMEOUT_S": "2.0",
            "PERFORMANCE_DATABASE_URL": truth.url,
            "PERFORMANCE_DATABASE_POOL_SIZE": "6",
            "PYTHONDONTWRITEBYTECODE": "",
            **env,
        }
        if "queries" in modes:  # or a worker that has asked for nothing yet would write unheard
            settings["PERFORMANCE_TRACKING_ENABLED"] = "true"
        command = [
            "-m", "uvicorn", APP, "--port", "0", "--workers", str(workers), "--no-access-log",
            "--timeout-keep-alive", "120", "--timeout-graceful-shutdown", "3",
            "--timeout-worker-healthcheck", "10",
        ]  # fmt: skip
        running = Service(distance)
        opened.callback(running.end)
        running.server = opened.enter_context(
            serving(command, env=settings, starts=workers, starts_within_s=START_S_MAX)
        )
        opened.callback(running.let_go)
        yield running

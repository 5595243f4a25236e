"""A growing cache under steady load: with the watch the app lives, without it is killed.

Three bounds, each of them real: a memory control group (the kernel's OOM killer), RLIMIT_DATA (the
allocator fails), and a process manager that kills what has more than it may.  Every app is its own
uvicorn process; all of them run at once, so that this takes little more than a minute in all.

How much each of them is asked counts, not for how long: it takes as long as the machine likes.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.memory_watch.control_group import memory_group
from tests.memory_watch.survival_app import PAGE_BYTES
from tests.repeated import MORE

pytestmark = pytest.mark.takes_a_minute

REQUESTS = 6_000 * MORE  # a minute, and more on a slow machine; 50 kB are kept of each
LIMIT_BYTES = 200 << 20  # the app itself takes about 70 MiB
DATA_BYTES = 120 << 20  # beside what is mapped at the start
REQUESTS_PER_S = 100
CLIENTS = 4
START_S = 150.0
ANSWER_S = 100.0  # for each wait: a TimeoutError is an OSError


@dataclass
class Life:
    """What became of one app."""

    returncode: int | None = None
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    status: dict = field(default_factory=dict)
    log: str = ""


class Service:
    """One app in its process, under load until the end or its death."""

    def __init__(self, directory: Path, name: str, **given):
        self.life = Life()
        self._given = {"limit_bytes": None, "group": None, "data_bytes": None, **given}
        self._log = directory / f"{name}.log"
        self._ended = threading.Event()
        self._begun = 0
        self._thread = threading.Thread(target=self._live, name=name)

    def start(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.memory_watch.survival_app", str(listener.fileno()),
                 json.dumps(self._given)],
                pass_fds=[listener.fileno()], stdout=log, stderr=log,
                env={key: os.environ[key] for key in os.environ if "PERFORMANCE_" not in key},
            )  # fmt: skip
        listener.close()
        self._thread.start()

    def wait(self) -> Life:
        self._thread.join()
        return self.life

    def stop(self):
        self._ended.set()
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def _live(self):
        asyncio.run(self._ask())
        if self.life.failed and not self._given["data_bytes"]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ANSWER_S)  # killed: it is on its way
        self.life.returncode = self._process.poll()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM if self._given["watch"] else signal.SIGKILL)
        try:
            self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.life.log = self._log.read_text()

    async def _ask(self):
        await self._started()
        bound = asyncio.create_task(self._bound())
        await asyncio.gather(*map(self._client, range(CLIENTS)))
        bound.cancel()
        if self._process.poll() is None:
            # One that found no memory may be alive and answer nobody, where its locks are held.
            with contextlib.suppress(OSError, EOFError, ValueError):
                _, body = await self._get_alone("/_perf/status")
                self.life.status = json.loads(body)

    async def _started(self):
        """Once the first answer came: until then nothing is steady."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError, EOFError):
                status, _ = await self._get_alone("/pages/0")
                if status == 200:
                    return
            await asyncio.sleep(0.1)

    async def _bound(self):
        """What a process manager does with a process that has more than it may."""
        child = psutil.Process(self._process.pid)
        while self._given["limit_bytes"] and not self._ended.is_set():
            with contextlib.suppress(psutil.Error):
                if child.memory_info().rss > self._given["limit_bytes"]:
                    self._process.kill()
            await asyncio.sleep(0.01)

    async def _client(self, client):
        number, due = client, time.monotonic()
        streams = None
        while self._begun < REQUESTS and not self._ended.is_set():
            self._begun += 1
            number += CLIENTS
            path = f"/notes/{number}" if number // CLIENTS % 4 == 0 else f"/pages/{number}"
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", self.port)
                status, body = await asyncio.wait_for(self._get(*streams, path), ANSWER_S)
                is_whole = len(body) == PAGE_BYTES if path.startswith("/pages") else bool(body)
                if status == 200 and is_whole:
                    self.life.answered += 1
                else:
                    self.life.failed.append(f"{path}: {status}, {len(body)} bytes")
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                self.life.failed.append(f"{path}: {error!r}")
                if streams is not None:
                    streams[1].close()
                    streams = None
                if not self._given["watch"]:
                    self._ended.set()  # that is what was to be seen
            due += CLIENTS / REQUESTS_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if streams is not None:
            streams[1].close()

    async def _get_alone(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            return await asyncio.wait_for(self._get(reader, writer, path), ANSWER_S)

    @staticmethod
    async def _get(reader, writer, path):
        authorization = "authorization: Bearer a token of the test\r\n"
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: a\r\n{authorization * (path[1] == '_')}\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """What became of each app, by its bound and whether it was watched."""
    directory = tmp_path_factory.mktemp("survival")
    with contextlib.ExitStack() as stack:
        services = {}
        for watch in (True, False):
            name = f"watch-{watch}"
            bounds = {"simulated": {"limit_bytes": LIMIT_BYTES}}
            if sys.platform == "linux":
                bounds["rlimit"] = {"data_bytes": DATA_BYTES}
                group = stack.enter_context(memory_group(LIMIT_BYTES, name=f"perf-{name}"))
                if group is not None:
                    bounds["group"] = {"group": str(group)}
            for bound, given in bounds.items():
                service = Service(directory, f"{bound}-{name}", watch=watch, **given)
                services[bound, watch] = service
                service.start()
                stack.callback(service.stop)
        yield {key: service.wait() for key, service in services.items()}


def life_of(lives, bound, *, watch):
    if (bound, watch) not in lives:
        pytest.skip("this kernel or these rights offer no memory control group")
    return lives[bound, watch]


BOUNDS = [
    pytest.param("simulated", id="a process manager that kills"),
    pytest.param(
        "rlimit", id="RLIMIT_DATA",
        marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux alone bounds mappings so"),
    ),
    pytest.param("group", id="a control group and the OOM killer"),
]  # fmt: skip


@pytest.mark.parametrize("bound", BOUNDS)
def test_with_the_watch_no_request_fails_under_load(lives, bound):
    life = life_of(lives, bound, watch=True)
    assert life.failed == [], life.log[-2000:]
    assert life.returncode is None, life.log[-2000:]
    assert life.answered == REQUESTS
    assert life.status["memory"]["cleanups"] >= 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_without_it_the_same_app_is_killed_or_fails(lives, bound):
    life = life_of(lives, bound, watch=False)
    assert life.failed
    if bound != "rlimit":  # there the allocator fails, and with it whatever asks it
        assert life.returncode == -signal.SIGKILL
        assert life.answered < REQUESTS

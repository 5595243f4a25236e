"""Real servers for the do-no-harm suite: one app bare, its twin with the bundle installed.

Server  uvicorn in a thread with its own loop, on a socket bound before it starts
Twins   the same app twice; `both(act)` says what a client sees, once both agree
"""

import contextlib
import itertools
import logging
import re
import socket
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import uvicorn
from starlette.applications import Starlette

from perf_middleware import Settings, install
from perf_middleware.asgi import ASGIApp
from tests.http.wire import Wire, eventually, http_request, masked

T = TypeVar("T")

_numbers = itertools.count(1)

# One request in a thousand takes the twin of the stack that measures it: here every one does.
EVERY_REQUEST_MEASURED = {"metrics": {"overhead_sample_every": 1}}


class Journal:
    """What an app notes while it serves; the test reads it from its own thread."""

    def __init__(self) -> None:
        self._notes: defaultdict[str, list[Any]] = defaultdict(list)

    def note(self, subject: str, what: Any) -> None:
        self._notes[subject].append(what)

    def about(self, subject: str) -> list[Any]:
        return list(self._notes[subject])

    def wait(self, subject: str, *, notes: int = 1) -> list[Any]:
        """All notes about `subject`, as soon as there are `notes` of them."""
        eventually(
            lambda: len(self._notes[subject]) >= notes,
            what=f"{notes} notes about {subject!r}, only {self._notes[subject]!r}",
        )
        return self.about(subject)


class Gates:
    """Where an app waits until the client sends a second request (`POST /release/{key}`)."""

    def __init__(self) -> None:
        self._open: defaultdict[str, anyio.Semaphore] = defaultdict(lambda: anyio.Semaphore(0))

    async def wait(self, key: str) -> None:
        await self._open[key].acquire()

    def release(self, key: str) -> None:
        self._open[key].release()


class Log(logging.Handler):
    """The records of one server thread; what the bundle says under its own name is left out."""

    def __init__(self, thread_name: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._thread_name = thread_name

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.startswith("perf_middleware")
        if record.threadName == self._thread_name and not ours:
            self.records.append(record)

    def lines(self) -> list[str]:
        return [_described(record) for record in self.records]


def _described(record: logging.LogRecord) -> str:
    """One record as text, without ports and process ids; an exception with all it chains to."""
    text = re.sub(r"127\.0\.0\.1:\d+", "(client)", record.getMessage())
    text = re.sub(r"\[\d+\]", "[pid]", text)
    if "Traceback (most recent call last)" in text:  # Starlette reports a failed start this way
        text = "Traceback … " + text.rstrip().rpartition("\n")[2]
    parts = [f"{record.name} {record.levelname} {text.rstrip()}"]
    exc = record.exc_info[1] if record.exc_info else None
    while exc is not None:
        raised_in = traceback.extract_tb(exc.__traceback__)[-1].name if exc.__traceback__ else "?"
        parts.append(f"{type(exc).__qualname__}{exc.args!r} raised in {raised_in}")
        exc = exc.__cause__ or exc.__context__
    return re.sub(r"\b(0x)?[0-9a-f]{9,16}\b", "(address)", " <- ".join(parts))


class Server:
    """One app under uvicorn until `stop`; `options` are uvicorn's own."""

    def __init__(self, app: ASGIApp, *, journal: Journal | None = None, **options: Any) -> None:
        self.journal = journal or Journal()
        name = f"server-{next(_numbers)}"  # identities of threads are given out again, names not
        self.log = Log(name)
        self.exit: BaseException | None = None
        # Ours before anyone is told of it.  asyncio sets TCP_NODELAY only where it is named so.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]
        options = {"http": "httptools", "loop": "asyncio", "timeout_graceful_shutdown": 5} | options
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(app, log_config=None, log_level="info", **options)
        )
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._uvicorn.run(sockets=[self._socket])
        except BaseException as exc:  # noqa: BLE001 - SystemExit(3) is how uvicorn says "not started"
            self.exit = exc
        finally:
            self._socket.close()

    def start(self) -> None:
        logging.getLogger().addHandler(self.log)
        self._thread.start()

    def wait_started(self) -> None:
        eventually(
            lambda: self._uvicorn.started or not self._thread.is_alive(), what="the server's start"
        )

    def ask_to_stop(self) -> None:
        self._uvicorn.should_exit = True

    def wait_stopped(self) -> None:
        eventually(lambda: not self._thread.is_alive(), what="the server's end")
        self._thread.join()
        logging.getLogger().removeHandler(self.log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> Wire:
        return Wire(self.port)

    def exchange(self, request: bytes) -> bytes:
        """The whole answer to a request that closes its connection, masked."""
        with self.connect() as wire:
            wire.send(request)
            return masked(wire.read_to_end())

    def release(self, key: str) -> None:
        """Let the app pass the gate `key` once, by a request of its own."""
        answer = self.exchange(http_request("POST", f"/release/{key}"))
        assert answer.startswith(b"HTTP/1.1 204 "), answer

    def wait_logged(self, text: str) -> None:
        eventually(
            lambda: any(text in line for line in self.log.lines()), what=f"a logged {text!r}"
        )

    @contextlib.contextmanager
    def logged(self, *, until: str) -> Iterator[list[str]]:
        """The lines logged from here on; at the end, waits for the one that contains `until`."""
        before = len(self.log.records)
        lines: list[str] = []
        yield lines
        eventually(
            lambda: any(until in line for line in self.log.lines()[before:]),
            what=f"a logged {until!r} in {self.log.lines()[before:]}",
        )
        lines += self.log.lines()[before:]


@contextlib.contextmanager
def serving(*servers: Server) -> Iterator[None]:
    """Run `servers` side by side; all of them are gone afterwards."""
    for server in servers:
        server.start()
    try:
        for server in servers:
            server.wait_started()
        yield
    finally:
        for server in servers:
            server.ask_to_stop()
        for server in servers:
            server.wait_stopped()


def with_bundle(app: ASGIApp, settings: Settings | None = None) -> ASGIApp:
    """What a user serves after `install(app, Settings())`."""
    perf = install(app, settings or Settings())
    return app if isinstance(app, Starlette) else perf


@dataclass(frozen=True, slots=True)
class Twins:
    """The same app twice."""

    bare: Server
    installed: Server

    def both(self, act: Callable[[Server], T]) -> T:
        """What `act` sees at the bare server, after it saw exactly that at the installed one."""
        as_before = act(self.bare)
        assert act(self.installed) == as_before
        return as_before


def twins_of(build: Callable[[Journal], ASGIApp], **options: Any) -> Twins:
    """Two servers, not started; each app is built with a journal of its own."""
    bare, installed = Journal(), Journal()
    return Twins(
        Server(build(bare), journal=bare, **options),
        Server(with_bundle(build(installed)), journal=installed, **options),
    )


@contextlib.contextmanager
def serving_twins(build: Callable[[Journal], ASGIApp], **options: Any) -> Iterator[Twins]:
    twins = twins_of(build, **options)
    with serving(twins.bare, twins.installed):
        yield twins

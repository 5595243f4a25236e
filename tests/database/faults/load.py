"""Some 30 requests a second, each on a connection of its own, from a thread with an event loop."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass

CLIENTS = ("/plain", "/fresh/1", "/cached/1", "/stale/1", "POST /write/1")
EVERY_S = 0.15
HUNG_S = 60.0  # several times what the app's settings let anything take


@dataclass
class Answer:
    what: str
    sent_s: float
    status: int
    headers: dict
    body: object

    @property
    def is_clear_refusal(self):
        return (
            self.status == 503
            and self.headers["content-type"] == "application/problem+json"
            and int(self.headers["retry-after"]) >= 0
            and "database" in self.body["detail"]
        )


async def ask(port, what):
    sent_s = time.monotonic()
    method, path = what.split() if " " in what else ("GET", what)
    async with asyncio.timeout(HUNG_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = f"{method} {path} HTTP/1.1\r\nhost: faults\r\nconnection: close\r\n"
        writer.write(f"{asked}content-length: 0\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
    try:
        told = json.loads(body)
    except ValueError:
        told = body.decode()
    return Answer(what, sent_s, int(first.split()[1]), headers, told)


class Load:
    """Runs within `with`; `answers` and `failures` (of connections, and hangs) grow."""

    def __init__(self, port):
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._pending = {}
        self.answers = []
        self.failures = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join(HUNG_S * 2)

    def now(self, what):
        return asyncio.run(ask(self._port, what))

    def oldest_s(self):
        """When the oldest request was sent that has no answer yet."""
        return min(list(self._pending.values()), default=time.monotonic())

    def since(self, sent_s, what):
        return [a for a in list(self.answers) if a.sent_s >= sent_s and a.what == what]

    async def _run(self):
        async with asyncio.TaskGroup() as tasks:
            while not self._is_over.is_set():
                for what in CLIENTS:
                    tasks.create_task(self._one(what))
                    await asyncio.sleep(EVERY_S / len(CLIENTS))

    async def _one(self, what):
        me = object()
        self._pending[me] = time.monotonic()
        try:
            self.answers.append(await ask(self._port, what))
        except Exception as error:  # noqa: BLE001 - a test looks at it
            self.failures.append((what, error))
        finally:
            del self._pending[me]

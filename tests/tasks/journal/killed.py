"""A server that is killed again and again while it accepts durable tasks; run by test_kill.py.

    this process      forks a server, asks it over sockets, kills it: kills times, on one journal
    each server       uvicorn, an app that answers when its durable task is accepted

What a task has done is a line in `ran`, written at once; what was answered is printed at the end.
One import of the libraries serves all servers: they are forked.
"""

import asyncio
import json
import os
import random
import select
import signal
import socket
import sys
import time
from pathlib import Path

import uvicorn
import uvicorn.lifespan.on
import uvicorn.protocols.http.h11_impl

from perf_middleware import QueueLimits
from perf_middleware.tasks import Tasks
from perf_middleware.tasks.journal.entries import JournalLimits

CLIENTS = 3
ALIVE_S_MAX = 0.06
STARTS_MAX = 1_000  # what is begun as its process is killed is no poison here
ANSWER, END = b"HTTP/1.1 200", b"\r\n\r\nok"
DRAINED_S_MAX = 120.0


def app_of(journal, ran):
    tasks = Tasks(
        QueueLimits(workers=4),
        journal_path=journal,
        journal_limits=JournalLimits(starts_max=STARTS_MAX),
    )

    @tasks.task(name="note")
    async def note(number):
        if number % 2:
            await asyncio.sleep(number % 5 / 1_000)  # some are killed as they wait
        os.write(ran, b"%d\n" % number)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await tasks.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await tasks.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await tasks.background(None, note, int(scope["path"][1:]), durable=True)
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app, tasks


LENGTH = (b"content-length", b"2")


def serve(listening, journal, ran):
    app, _ = app_of(journal, ran)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, loop="asyncio", http="h11", lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listening])


class Client:
    """Asks for one task after the other on one connection."""

    def __init__(self, address, number, answered):
        self.socket = socket.create_connection(address)
        self._number = number
        self._answered = answered
        self._asked = 0
        self._heard = b""
        self.ask()

    def ask(self):
        self._asked = self._number()
        request = f"POST /{self._asked} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
        self.socket.sendall(request.encode())

    def hear(self):
        """What there is to read; whether the answer is complete, None where the server is gone."""
        try:
            told = self.socket.recv(65536)
        except ConnectionResetError:
            told = b""
        if not told:
            return None
        self._heard += told
        if not self._heard.endswith(END):
            return False
        assert self._heard.startswith(ANSWER), self._heard
        self._heard = b""
        self._answered.add(self._asked)
        return True


def one_life(listening, journal, ran, *, number, answered, alive_s):
    """Fork a server, ask it until it was alive for so long, kill it."""
    server = os.fork()
    if server == 0:
        try:
            serve(listening, journal, ran)
        finally:
            os._exit(1)
    until_s = None
    clients = [Client(listening.getsockname(), number, answered) for _ in range(CLIENTS)]
    try:
        while until_s is None or time.monotonic() < until_s:
            left_s = 1.0 if until_s is None else max(0.0, until_s - time.monotonic())
            heard, _, _ = select.select([client.socket for client in clients], [], [], left_s)
            for client in clients:
                if client.socket not in heard:
                    continue
                has_answered = client.hear()
                assert has_answered is not None, "a server has ended by itself"
                if has_answered:
                    if until_s is None:  # from its first answer on it is killed at any moment
                        until_s = time.monotonic() + alive_s
                    client.ask()
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    for client in clients:  # what was answered before the end, and not read yet
        while client.hear() is not None:
            continue
        client.socket.close()


def numbers_in(file):
    """What has run."""
    return {int(line) for line in file.read_text().split()}


async def last_life(journal, ran):
    """Run what is left; how many entries the journal has at its end."""
    _, tasks = app_of(journal, ran)
    async with tasks:
        until_s = time.monotonic() + DRAINED_S_MAX
        while time.monotonic() < until_s:
            entries, _, dead = await tasks.journal._ask(lambda store: store.picture())
            if entries == dead:
                break
            await asyncio.sleep(0.02)
    return entries, dead


def main(folder, kills, seed):
    draw = random.Random(seed)
    journal = folder / "tasks.db"
    ran = os.open(folder / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    numbers = iter(range(1, 10_000_000))
    answered = set()
    left_behind = []
    # asyncio answers without delay only where the protocol is named.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        for _ in range(kills):
            one_life(
                listening, journal, ran, number=numbers.__next__, answered=answered,
                alive_s=draw.uniform(0, ALIVE_S_MAX),
            )  # fmt: skip
            left_behind.append(len(answered - numbers_in(folder / "ran")))
    left = asyncio.run(last_life(journal, ran))
    told = {
        "asked": next(numbers) - 1, "answered": sorted(answered), "left_behind": left_behind,
        "entries_and_dead": left,
    }  # fmt: skip
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

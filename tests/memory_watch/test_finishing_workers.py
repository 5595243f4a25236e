"""Two uvicorn workers run out of memory under load: each ends in its turn, and no answer is lost.

Workers of uvicorn accept from one listening socket, which the supervisor keeps open: a connection
is never refused, and waits there until a worker takes it.  What a client can meet is a connection
that was accepted and is closed before its request was read.  Such a request was not begun, and the
client here sends it once more, as clients do on a connection that was idle.
"""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from tests.examples.servers import eventually, serving
from tests.memory_watch.finishing_app import PART, PARTS

GAP_S = 1.5
CLIENTS = 6
AGAIN_MAX = 3


class Clients:
    """Slow requests one after the other, each on a connection of its own, until stopped."""

    def __init__(self, port):
        self.answers = []  # (worker, whether it is whole)
        self.failures = []
        self.again = 0
        self._address = ("127.0.0.1", port)
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._is_over.is_set():
            try:
                self.answers.append(self._ask())
            except OSError as error:
                self.failures.append(repr(error))

    def _ask(self):
        for _ in range(AGAIN_MAX):
            answer = self._exchange()
            if answer:
                head, _, body = answer.partition(b"\r\n\r\n")
                status, *fields = head.decode().split("\r\n")
                named = dict(field.split(": ", 1) for field in fields)
                sent = body.count(PART)
                is_whole = sent == PARTS and body.endswith(b"\r\n0\r\n\r\n")
                return int(named.get("x-worker", 0)), status == "HTTP/1.1 200 OK" and is_whole
            self.again += 1
        raise ConnectionError("closed without a byte, time after time")

    def _exchange(self):
        answer = b""
        with socket.create_connection(self._address, timeout=200) as wire:
            try:
                wire.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                while part := wire.recv(65_536):
                    answer += part
            except ConnectionError:
                if answer:
                    raise
        return answer

    def workers(self):
        return {worker for worker, _ in list(self.answers)}


def notes_of(directory):
    """When each worker had its turn, was asked to finish, and closed: seconds by pid."""
    found = {"turn": {}, "asked": {}, "closed": {}}
    for line in (directory / "notes").read_text().splitlines():
        what, pid, at_s = line.split()
        assert int(pid) not in found[what], "it was asked twice"
        found[what][int(pid)] = float(at_s)
    return found


@pytest.mark.skipif(os.name == "nt", reason="without flock the turn is drawn")
def test_workers_finish_one_after_the_other_and_every_answer_is_whole(tmp_path):
    command = [
        "-m", "uvicorn", "tests.memory_watch.finishing_app:app", "--port", "0", "--workers", "2",
        "--timeout-graceful-shutdown", "60",
        # The supervisor kills a worker that does not answer it in time, at its start too.
        "--timeout-worker-healthcheck", "20",
    ]  # fmt: skip
    env = {"FINISHING_DIRECTORY": str(tmp_path), "FINISHING_GAP_S": str(GAP_S)}
    with serving(command, env=env, starts=2) as server:
        port = int(server.url.rpartition(":")[2])
        with Clients(port) as clients:
            old = eventually(
                lambda: (seen := clients.workers()) and len(seen) == 2 and seen, what="both answer"
            )
            (tmp_path / "short").write_text(" ".join(map(str, old)))

            def are_replaced():
                notes = tmp_path / "notes"
                closed = notes_of(tmp_path)["closed"].keys() if notes.exists() else set()
                return closed >= old and len(clients.workers() - old) >= 2

            eventually(are_replaced, what="two fresh workers answer", within_s=200)
            time.sleep(0.2)
        log = server.log()
    assert clients.failures == []
    assert [answer for answer in clients.answers if not answer[1]] == []
    notes = notes_of(tmp_path)
    assert notes["asked"].keys() == old
    first, second = sorted(notes["asked"], key=notes["asked"].__getitem__)
    assert notes["asked"][second] > notes["closed"][first]
    assert notes["turn"][second] - notes["turn"][first] >= GAP_S - 1e-6
    assert log.count("this worker (") == 2
    assert clients.again <= 2 * CLIENTS

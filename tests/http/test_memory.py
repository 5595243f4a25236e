"""Large bodies pass through in parts: the server process does not grow with them."""

import contextlib
import hashlib
import json
import socket
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.forked import ROOT, Process, start
from tests.http.child import PART
from tests.http.wire import DEADLINE_S, Wire, http_request

PARTS = 800  # of 64 KiB: 50 MiB
BODY_BYTES = PARTS * PART
GROWTH_BYTES_MAX = 20 * 1024 * 1024  # far below the body, far above an allocator's moods


class Child:
    """A server process, and how much memory it holds."""

    def __init__(self, port: int, process: Process | subprocess.Popen[str]) -> None:
        self.port = port
        self.process = process
        self._memory = psutil.Process(process.pid)

    def resident_bytes(self) -> int:
        return self._memory.memory_info().rss


@contextlib.contextmanager
def child_of(kind: str) -> Iterator[Child]:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # listening: early clients just wait
        fd = listener.fileno()
        process = start(["-m", "tests.http.child", kind, str(fd)], pass_fds=[fd], cwd=ROOT)
        port = listener.getsockname()[1]
    try:
        yield Child(port, process)
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def children() -> Iterator[dict[str, Child]]:
    with child_of("bare") as bare, child_of("installed") as installed:
        yield {"bare": bare, "installed": installed}


def upload(child: Child, parts: int) -> tuple[str, int]:
    """Send a body; its digest at the other end, and the most memory seen on the way."""
    most = 0
    with Wire(child.port) as wire:
        length = ("Content-Length", str(parts * PART))
        wire.send(http_request("POST", "/upload", length))
        for number in range(parts):
            wire.send(bytes([number % 256]) * PART)
            if number % 8 == 0:
                most = max(most, child.resident_bytes())
        most = max(most, child.resident_bytes())
        answer = wire.read_to_end()
    received = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert received["size"] == parts * PART
    return received["sha256"], max(most, child.resident_bytes())


def download(child: Child, parts: int) -> tuple[str, int]:
    """Read a body slowly; its digest, and the most memory seen on the way."""
    most, digest, size = 0, hashlib.sha256(), 0
    with Wire(child.port) as wire:
        wire.send(http_request("GET", f"/download?parts={parts}"))
        wire.read_until(b"\r\n\r\n")
        while header := wire.read_until(b"\r\n"):
            part = wire.read_exactly(int(header, 16) + 2)[:-2]
            if not part:
                break
            if size % (8 * PART) == 0:
                most = max(most, child.resident_bytes())
            digest.update(part)
            size += len(part)
    assert size == parts * PART
    return digest.hexdigest(), max(most, child.resident_bytes())


@pytest.mark.parametrize("transfer", [upload, download])
def test_fifty_megabytes_pass_without_being_held(children: dict[str, Child], transfer):
    expected = hashlib.sha256()
    for number in range(PARTS):
        expected.update(bytes([number % 256]) * PART)
    growth = {}
    for kind, child in children.items():
        transfer(child, 16)  # warm: buffers, code and caches are there
        before = child.resident_bytes()
        digest, most = transfer(child, PARTS)
        assert digest == expected.hexdigest()
        growth[kind] = most - before
    assert growth["installed"] < growth["bare"] + GROWTH_BYTES_MAX
    assert growth["installed"] < BODY_BYTES / 2


def test_the_process_ends_when_it_is_told_to():
    """SIGTERM ends the process in the way that the server alone would end it."""
    codes = {}
    for kind in ("bare", "installed"):
        with child_of(kind) as child:
            upload(child, 1)
            child.process.terminate()
            codes[kind] = child.process.wait(DEADLINE_S)
    assert codes["installed"] == codes["bare"]

"""Decompression bombs against a server process: refused soon, and in bounded memory."""

import contextlib
import re
import socket
from pathlib import Path

import psutil
import pytest

from tests.compression.coded import BOMBS, MB, coded, repeated
from tests.forked import ROOT, start
from tests.http.wire import DEADLINE_S, Wire, http_request

GENEROUS = {"bytes_max": 8 * MB, "ratio_max": 1 << 40}  # only the bytes are left to stop a bomb
STRICT = {"bytes_max": 8 * MB, "ratio_max": 100}
MORE_BYTES_MAX = 10 * MB


class Server:
    """A server process, and the most memory that it ever held."""

    def __init__(self, port, process, limits):
        self.port = port
        self.limits = limits
        self._pid = process.pid

    def peak_bytes(self):
        status = Path(f"/proc/{self._pid}/status")
        if status.exists():
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
        return psutil.Process(self._pid).memory_info().rss

    def forget_peak(self):
        clear = Path(f"/proc/{self._pid}/clear_refs")
        if clear.exists():
            clear.write_text("5")

    def post(self, path, coding, body):
        """Status and body of the answer; the connection is still good afterwards."""
        with Wire(self.port) as wire:
            wire.send(http_request("POST", path, ("Content-Encoding", coding), body=body,
                                   keep_alive=True))  # fmt: skip
            first = wire.read_answer()
            wire.send(http_request("POST", path, body=b"abc", keep_alive=True))
            assert wire.read_answer().endswith(b"\r\n\r\n3")
        return int(first[9:12]), first.partition(b"\r\n\r\n")[2]


@contextlib.contextmanager
def serving(limits):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # listening: early clients just wait
        fd = listener.fileno()
        process = start(
            ["-m", "tests.compression.middleware.child",
             str(fd), str(limits["bytes_max"]), str(limits["ratio_max"])],
            pass_fds=[fd],
            cwd=ROOT,
        )  # fmt: skip
        port = listener.getsockname()[1]
    try:
        yield Server(port, process, limits)
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=[GENEROUS, STRICT], ids=["by bytes", "by ratio"])
def server(request):
    with serving(request.param) as server:
        for path in ("/whole", "/stream"):
            for name in ("gzip", "br", "zstd", "deflate"):  # what is loaded once is loaded now
                assert server.post(path, name, coded(b"x" * 1_000, name)) == (200, b"1000")
        yield server


@pytest.mark.parametrize("path", ["/whole", "/stream"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(server, bomb, path):
    coding, build = BOMBS[bomb]
    body = build()
    server.forget_peak()
    before = server.peak_bytes()
    status, answer = server.post(path, coding, body)
    grown = server.peak_bytes() - before
    assert status in {400, 413}, answer
    held = server.limits["bytes_max"] if path == "/whole" else 0
    assert grown <= held + MORE_BYTES_MAX + len(body)


@pytest.mark.parametrize("name", ["gzip", "br", "zstd", "deflate"])
def test_a_body_at_its_limit_is_taken_in_bounded_memory(name):
    with serving(GENEROUS) as server:
        assert server.post("/stream", name, coded(b"x", name)) == (200, b"1")
        server.forget_peak()
        before = server.peak_bytes()
        assert server.post("/stream", name, repeated(name, 8 * MB)) == (200, b"8388608")
        assert server.peak_bytes() - before <= 8 * MB + MORE_BYTES_MAX

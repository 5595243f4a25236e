"""A client that sees bytes: raw sockets, so that heads, chunks and their order hide behind nothing.

`DEADLINE_S` bounds every wait: a test fails there instead of hanging; none asserts on speed.
"""

import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Self, TypeVar

DEADLINE_S = 120.0
HOST = b"example.test"  # fixed, so that URLs built from it agree between two ports
UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),  # fixed: the accept key is then fixed too
)

T = TypeVar("T")


def eventually(look: Callable[[], T], *, what: str) -> T:
    """The first truthy result of `look()`; fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.002)
    return seen


def http_request(
    method: str,
    target: str,
    *headers: tuple[str, str],
    body: bytes | None = None,
    keep_alive: bool = False,
) -> bytes:
    """One request as it travels; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: " + HOST]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def handshake(target: str, *headers: tuple[str, str]) -> bytes:
    """A websocket opening handshake as it travels."""
    return http_request("GET", target, *UPGRADE, *headers, keep_alive=True)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 §7.1); `chunk(b"")` ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def masked(answer: bytes) -> bytes:
    """`answer` without what differs between any two runs: Date and random multipart boundaries."""
    answer = re.sub(rb"(?i)(\r\ndate: )[^\r]*", rb"\1(masked)", answer)
    drawn = re.search(rb"multipart/byteranges; boundary=(\w+)", answer)
    return answer.replace(drawn[1], b"(masked)") if drawn else answer


class Wire:
    """One TCP connection; what was read ahead is kept for the next read."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ahead = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def abort(self) -> None:
        """Close at once with a reset, as a client does that was killed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def read_until(self, marker: bytes) -> bytes:
        """Everything up to and with `marker`."""
        deadline = time.monotonic() + DEADLINE_S
        while marker not in self._ahead:
            data = self._receive(deadline)
            assert data, f"the connection ended before {marker!r}; it had sent {self._ahead!r}"
            self._ahead += data
        read, _, self._ahead = self._ahead.partition(marker)
        return read + marker

    def read_exactly(self, size: int) -> bytes:
        deadline = time.monotonic() + DEADLINE_S
        while len(self._ahead) < size:
            data = self._receive(deadline)
            assert data, f"the connection ended after {len(self._ahead)} of {size} bytes"
            self._ahead += data
        read, self._ahead = self._ahead[:size], self._ahead[size:]
        return read

    def read_some(self) -> bytes:
        """What arrives next; empty at the end of the connection."""
        if self._ahead:
            read, self._ahead = self._ahead, b""
            return read
        return self._receive(time.monotonic() + DEADLINE_S)

    def read_to_end(self) -> bytes:
        deadline = time.monotonic() + DEADLINE_S
        parts, self._ahead = [self._ahead], b""
        while data := self._receive(deadline):
            parts.append(data)
        return b"".join(parts)

    def _receive(self, deadline: float) -> bytes:
        """What arrives next.  A peer that keeps sending pings cannot move the deadline."""
        left_s = deadline - time.monotonic()
        assert left_s > 0, f"still reading after {DEADLINE_S:.0f} s; read ahead: {self._ahead!r}"
        self._socket.settimeout(left_s)
        return self._socket.recv(262_144)

    def read_answer(self) -> bytes:
        """One whole answer of a connection that stays open (not for HEAD)."""
        head = self.read_until(b"\r\n\r\n")
        if re.search(rb"(?i)\r\ntransfer-encoding: chunked\r\n", head):
            return head + self.read_until(b"0\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
        return head + self.read_exactly(int(length[1]) if length else 0)

"""Streams arrive as the app sends them: part by part, and they end when the client does."""

import pytest

from tests.http.servers import Server, Twins
from tests.http.wire import chunk, http_request, masked

ENDED_BY_DISCONNECT = ["stream ended by CancelledError", "stream cleaned up"]


def received_between_gates(server: Server, target: str, key: str, gates: int) -> list[bytes]:
    """What the client has before each gate is released, and then the rest.

    The app produces the next part only after a second request released it, so a layer that holds
    a part back would never see the test go on.
    """
    received = []
    with server.connect() as wire:
        wire.send(http_request("GET", target))
        received.append(masked(wire.read_until(b"\r\n\r\n")))
        for _ in range(gates):
            size = wire.read_until(b"\r\n")
            received.append(size + wire.read_exactly(int(size, 16) + 2))
            server.release(key)
        received.append(wire.read_to_end())
    return received


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        pytest.param("/gated", [b"one", b"two", b"three"], id="a stream"),
        pytest.param(
            "/events",
            [b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n", b": ping\n\n"],
            id="server-sent events",
        ),
    ],
)
def test_the_client_has_each_part_before_the_app_makes_the_next(twins: Twins, key, path, parts):
    head, *chunks, end = twins.both(
        lambda server: received_between_gates(server, f"{path}/{key}", key, gates=3)
    )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert chunks == [chunk(part) for part in parts]
    assert end == chunk(b"")
    complete = ["stream complete", "stream cleaned up"]
    assert twins.both(lambda server: server.journal.wait(key, notes=2)) == complete


def test_fastapi_sends_its_events_one_by_one(fastapi_twins: Twins, key):
    head, *events, end = fastapi_twins.both(
        lambda server: received_between_gates(server, f"/v1/events/{key}", key, gates=3)
    )
    assert b"text/event-stream" in head
    assert [b'"number": %d' % number in event for number, event in enumerate(events)] == [True] * 3
    assert end == chunk(b"")


def test_fastapi_sends_its_json_lines_one_by_one(fastapi_twins: Twins, key):
    head, *lines, end = fastapi_twins.both(
        lambda server: received_between_gates(server, f"/v1/lines/{key}", key, gates=2)
    )
    assert b"jsonl" in head
    assert lines[0] == chunk(b'{"name":"line","price":1.0}\n')
    assert end == chunk(b"")


@pytest.mark.parametrize("path", ["/gated", "/events"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_stream_is_cancelled_and_cleaned_up_when_its_client_leaves(
    twins: Twins, key, path, leave
):
    def leave_after_the_first_part(server: Server):
        with server.connect() as wire:
            wire.send(http_request("GET", f"{path}/{key}", keep_alive=True))
            wire.read_until(b"\r\n\r\n")
            wire.read_until(b"\r\n")
            if leave == "reset":
                wire.abort()
        return server.journal.wait(key, notes=2)

    assert twins.both(leave_after_the_first_part) == ENDED_BY_DISCONNECT


def test_an_event_stream_of_fastapi_is_cleaned_up_when_its_client_leaves(fastapi_twins: Twins, key):
    def leave_after_the_first_event(server: Server):
        with server.connect() as wire:
            wire.send(http_request("GET", f"/v1/events/{key}", keep_alive=True))
            wire.read_until(b'"number": 0')
        return server.journal.wait(key)

    assert fastapi_twins.both(leave_after_the_first_event) == ["stream cleaned up"]


def test_a_request_knows_whether_its_client_has_left(twins: Twins, key):
    def leave_when_the_app_has_looked_once(server: Server):
        with server.connect() as wire:
            wire.send(http_request("GET", f"/until-disconnected/{key}"))
            server.journal.wait(key)
        return server.journal.wait(key, notes=2)

    assert twins.both(leave_when_the_app_has_looked_once) == [
        "disconnected: False",
        "disconnected: True",
    ]


def test_a_slow_reader_holds_the_app_back(twins: Twins):
    """The answer is larger than what sockets keep, and arrives whole once it is read."""

    def read_late(server: Server):
        with server.connect() as slow:
            slow.send(http_request("GET", "/large"))
            other = server.exchange(http_request("GET", "/text"))
            return masked(slow.read_to_end()), other

    slow, other = twins.both(read_late)
    assert slow.endswith(b"\r\n\r\n" + b"a line of text\n" * 20_000)
    assert other.startswith(b"HTTP/1.1 200 ")

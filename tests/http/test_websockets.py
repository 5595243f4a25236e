"""Websockets: handshake, messages, close codes and refusals are the app's own."""

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.http.servers import Server, Twins
from tests.http.wire import DEADLINE_S, handshake, masked


def dial(server: Server, path: str, **options):
    return connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=DEADLINE_S, **options)


@pytest.mark.parametrize(
    ("request_bytes", "status", "part"),
    [
        pytest.param(handshake("/ws/echo"), 101, b"x-accepted: yes\r\n", id="accepted"),
        pytest.param(
            handshake("/ws/subprotocol", ("Sec-WebSocket-Protocol", "chat, superchat")),
            101, b"superchat\r\n", id="with a subprotocol",
        ),
        pytest.param(handshake("/ws/rejected"), 403, b"", id="closed before it was accepted"),
        pytest.param(handshake("/ws/denied"), 401, b'{"denied":true}', id="denied by an answer"),
        pytest.param(handshake("/ws/http-error"), 403, b"", id="refused by HTTPException"),
        pytest.param(handshake("/ws/boom-early"), 500, b"", id="failed before it was accepted"),
        pytest.param(handshake("/ws/nowhere"), 403, b"", id="no such route"),
    ],
)  # fmt: skip
def test_the_handshake_is_answered_byte_for_byte(twins: Twins, request_bytes, status, part):
    def shake_hands(server: Server):
        with server.connect() as wire:
            wire.send(request_bytes)
            head = wire.read_until(b"\r\n\r\n")
            return masked(head if status == 101 else head + wire.read_to_end())

    answer = twins.both(shake_hands)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert part.lower() in answer.lower()


def test_text_and_bytes_go_both_ways(twins: Twins):
    def talk(server: Server):
        with dial(server, "/ws/echo") as ws:
            heard = []
            for message in ("größe", b"\x00\xff", "", b"x" * 100_000, "last"):
                ws.send(message)
                heard.append(ws.recv(timeout=DEADLINE_S))
            return heard

    assert twins.both(talk) == [
        "text größe",
        b"bytes \x00\xff",
        "text ",
        b"bytes " + b"x" * 100_000,
        "text last",
    ]


def test_messages_arrive_one_by_one(twins: Twins, key):
    def listen(server: Server):
        heard = []
        with dial(server, f"/ws/on-command/{key}") as ws:
            for _ in range(3):
                heard.append(ws.recv(timeout=DEADLINE_S))
                server.release(key)
        return heard

    assert twins.both(listen) == ["number 0", "number 1", "number 2"]


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        pytest.param("/ws/subprotocol", 4001, "told all", id="the app's own code and reason"),
        pytest.param("/ws/boom", None, None, id="none where the app failed: the server cuts off"),
    ],
)
def test_the_client_sees_the_close_code(twins: Twins, path, code, reason):
    def hear_the_end(server: Server):
        heard = []
        with dial(server, path, subprotocols=["chat", "superchat"]) as ws:
            try:
                while True:
                    heard.append(ws.recv(timeout=DEADLINE_S))
            except ConnectionClosed as closed:
                last = closed.rcvd
                return heard, last and last.code, last and last.reason, ws.subprotocol

    heard, seen_code, seen_reason, _ = twins.both(hear_the_end)
    assert (seen_code, seen_reason) == (code, reason)
    assert all('"own task":true' in message for message in heard)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(1000, "", id="normal"),
        pytest.param(4321, "gone fishing", id="the client's own code and reason"),
    ],
)
def test_the_app_sees_the_close_code(twins: Twins, key, code, reason):
    def hang_up(server: Server):
        with dial(server, f"/ws/until-closed/{key}") as ws:
            ws.close(code, reason)
        return server.journal.wait(key)

    assert twins.both(hang_up) == [(code, reason)]


def test_the_app_sees_a_client_that_vanished(twins: Twins, key):
    def vanish(server: Server):
        with server.connect() as wire:
            wire.send(handshake(f"/ws/until-closed/{key}"))
            wire.read_until(b"\r\n\r\n")
            wire.abort()
        return server.journal.wait(key)

    [(code, _)] = twins.both(vanish)
    assert code in (1005, 1006)


@pytest.mark.parametrize("path", ["/ws/boom", "/ws/boom-early"])
def test_a_failure_reaches_the_servers_log(twins: Twins, path):
    def fail(server: Server):
        with server.logged(until="UnhandledError") as lines, server.connect() as wire:
            wire.send(handshake(path))
            wire.read_to_end()
        return [line for line in lines if " ERROR " in line]

    [line] = twins.both(fail)
    assert "raised in socket_boom" in line


def test_fastapi_judges_a_websocket_by_its_parameters(fastapi_twins: Twins):
    def judge(server: Server):
        with server.connect() as wire:
            wire.send(handshake("/v1/ws?token=wrong"))
            refused = masked(wire.read_to_end())
        with dial(server, "/v1/ws?token=right") as ws:
            return refused, ws.recv(timeout=DEADLINE_S)

    refused, greeting = fastapi_twins.both(judge)
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert greeting == '{"token":"right"}'

"""What a connection carries beyond one request: reuse, pipelines, chunked and announced bodies."""

from tests.http.servers import Server, Twins
from tests.http.wire import Wire, chunk, http_request, masked


def chunked_post(target: str, *headers: tuple[str, str]) -> bytes:
    """The head of a request whose body comes in chunks."""
    return http_request("POST", target, ("Transfer-Encoding", "chunked"), *headers, keep_alive=True)


def test_a_connection_serves_one_request_after_the_other(twins: Twins):
    def ask_thrice(server: Server):
        with server.connect() as wire:
            answers = []
            for target in ("/json", "/nowhere", "/headers"):
                wire.send(http_request("GET", target, keep_alive=True))
                answers.append(masked(wire.read_answer()))
            return answers

    answers = twins.both(ask_thrice)
    assert [answer[9:12] for answer in answers] == [b"200", b"404", b"200"]
    assert not any(b"connection: close" in answer for answer in answers)


def test_a_stream_leaves_the_connection_open(twins: Twins, key):
    def stream_then_text(server: Server):
        with server.connect() as wire:
            wire.send(http_request("GET", f"/gated/{key}", keep_alive=True))
            for _ in range(3):
                server.release(key)
            stream = masked(wire.read_answer())
            wire.send(http_request("GET", "/text"))
            return stream, masked(wire.read_to_end())

    stream, text = twins.both(stream_then_text)
    assert stream.endswith(b"5\r\nthree\r\n0\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_their_order(twins: Twins, key):
    """The first is answered last by the app's clock; the others wait for their turn."""

    def pipeline(server: Server):
        with server.connect() as wire:
            wire.send(
                http_request("GET", f"/wait/{key}", keep_alive=True)
                + http_request("GET", "/nowhere", keep_alive=True)
                + http_request("HEAD", "/text", keep_alive=True)
                + http_request("GET", "/json")
            )
            server.journal.wait(key)
            server.release(key)
            return masked(wire.read_to_end())

    answers = twins.both(pipeline)
    marks = [f"waited {key}".encode(), b"404 Not Found", b"content-length: 7", b'{"text":']
    places = [answers.index(mark) for mark in marks]
    assert places == sorted(places)
    assert answers.count(b"HTTP/1.1 ") == 4


def test_http_1_0_is_answered_as_before(twins: Twins):
    request = b"GET /json HTTP/1.0\r\nHost: example.test\r\n\r\n"
    answer = twins.both(lambda server: server.exchange(request))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_chunked_request_body_arrives_whole(twins: Twins):
    request = (
        chunked_post("/upload", ("Connection", "close"))
        + chunk(b"first")
        + chunk(b"x" * 100_000)
        + chunk(b"")
    )
    answer = twins.both(lambda server: server.exchange(request))
    assert b'"size":100005' in answer


def test_the_app_reads_each_part_of_a_body_as_it_comes(twins: Twins):
    """A dialogue over one request: the client sends a part only after the last one's echo."""

    def converse(server: Server):
        with server.connect() as wire:
            wire.send(chunked_post("/duplex/"))
            heard = [masked(wire.read_until(b"\r\n\r\n"))]
            for part in (b"one", b"two", b"three"):
                wire.send(chunk(part))
                heard.append(wire.read_until(b">\r\n"))
            wire.send(chunk(b""))
            heard.append(wire.read_until(b"0\r\n\r\n"))
            return heard

    head, *echoes, _ = twins.both(converse)
    assert b"transfer-encoding: chunked" in head.lower()
    assert echoes == [chunk(b"<one>"), chunk(b"<two>"), chunk(b"<three>")]


def expecting(target: str) -> bytes:
    return http_request(
        "POST", target, ("Expect", "100-continue"), ("Content-Length", "5"), keep_alive=True
    )


def test_the_client_is_told_to_continue_when_the_app_reads(twins: Twins):
    def wait_to_be_asked(server: Server):
        with server.connect() as wire:
            wire.send(expecting("/upload"))
            told = wire.read_until(b"\r\n\r\n")
            wire.send(b"12345")
            return told, masked(wire.read_answer())

    told, answer = twins.both(wait_to_be_asked)
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b'"size":5' in answer


def test_a_body_that_the_app_does_not_read_is_not_asked_for(twins: Twins):
    def announce_only(server: Server):
        with server.connect() as wire:
            wire.send(expecting("/unread"))
            return masked(wire.read_answer())

    assert twins.both(announce_only).startswith(b"HTTP/1.1 401 ")


def test_the_app_learns_that_its_client_left_during_an_upload(twins: Twins, key):
    def leave_half_way(server: Server):
        with server.logged(until="ClientDisconnect") as lines, server.connect() as wire:
            _send_half(wire, key)
            server.journal.wait(key)
        return server.journal.wait(key, notes=2), lines

    notes, lines = twins.both(leave_half_way)
    assert notes == ["read up to 5", "the client left"]
    assert any("ClientDisconnect()" in line for line in lines)


def _send_half(wire: Wire, key: str) -> None:
    head = http_request("POST", f"/upload/{key}", ("Content-Length", "10"), keep_alive=True)
    wire.send(head + b"first")


def test_what_is_not_http_is_refused_as_before(twins: Twins):
    answer = twins.both(lambda server: server.exchange(b"hello there\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 400 ")

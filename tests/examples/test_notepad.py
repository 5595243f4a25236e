"""The Starlette example, over a real server."""

import re
import signal

import httpx2
import pytest
from websockets.sync.client import connect

from tests.examples.figures import value_of
from tests.examples.servers import ServerProcess, eventually, serving, serving_app


@pytest.fixture(scope="module")
def server():
    with serving_app("examples.starlette_app.app:app") as server:
        yield server


@pytest.fixture(scope="module")
def notepad(server: ServerProcess):
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        yield client


def test_a_note_is_where_location_says(notepad):
    added = notepad.post("/notes", content="buy milk")
    assert added.status_code == 201
    assert notepad.get(added.headers["location"]).text == "buy milk"
    assert notepad.get("/notes").json()[-1] == "buy milk"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        pytest.param("GET", "/nowhere", "", 404, id="no route"),
        pytest.param("GET", "/notes/999", "", 404, id="no note"),
        pytest.param("DELETE", "/notes/1", "", 405, id="wrong method"),
        pytest.param("POST", "/notes", " ", 422, id="empty"),
        pytest.param("POST", "/notes", "x" * 10_001, 413, id="too long"),
    ],
)
def test_a_wrong_request_is_told_so(notepad, method, path, content, status):
    assert notepad.request(method, path, content=content).status_code == status


def test_the_websocket_echoes(server):
    with connect(re.sub("^http", "ws", server.url) + "/echo") as websocket:
        for text in ("one", "two"):
            websocket.send(text)
            assert websocket.recv(20) == text


def test_metrics_name_the_route_by_its_template(notepad):
    labels = {"method": "GET", "route": "/notes/{number}", "status": "200"}
    before = value_of(notepad, "http_requests_total", **labels)
    assert notepad.get("/notes/1").status_code == 200
    eventually(
        lambda: value_of(notepad, "http_requests_total", **labels) == before + 1,
        what="the request is counted",
    )


def test_its_command_starts_it_and_ends_cleanly():
    with serving(["-m", "examples.starlette_app", "--port", "0"]) as server:
        assert httpx2.get(f"{server.url}/notes").status_code == 200
        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.log()


def test_the_list_is_kept_until_a_note_is_added(notepad):
    notepad.post("/notes", content="the first")
    asked, kept = notepad.get("/notes"), notepad.get("/notes", headers={"Cookie": "who=me"})
    assert "fwd=uri-miss; stored" in asked.headers["cache-status"]
    assert "; hit; " in kept.headers["cache-status"]
    assert int(kept.headers["age"]) < 60
    assert kept.json() == asked.json()
    notepad.post("/notes", content="the second")
    assert notepad.get("/notes").json() == [*asked.json(), "the second"]


def test_words_are_counted_behind_the_answer(notepad):
    before = value_of(notepad, "notes_words_total")
    notepad.post("/notes", content="three more words")
    eventually(
        lambda: value_of(notepad, "notes_words_total") == before + 3, what="the words are counted"
    )

"""Whom the report blames under real servers: started in each of the usual ways."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

APP = """
import time
from fastapi import FastAPI
from perf_middleware import install

BIG = [{"a": i, "b": str(i), "c": [i, i]} for i in range(40_000)]
app = FastAPI()
install(app)

@app.get("/big")
async def big():
    return BIG

@app.get("/sleep")
async def sleep():
    time.sleep(0.8)

@app.get("/ready")
async def ready():
    pass

if __name__ == "__main__":
    import sys
    import uvicorn
    uvicorn.run(app, fd=int(sys.argv[1]), log_level="warning")
"""
ROOT = Path(__file__).parents[2]
UVICORN = str(Path(sys.executable).parent / "uvicorn")
SOON = {"PERFORMANCE_RUNTIME_BLOCKED_S": "0.1"}  # a quarter of what a block is by default
OPTIONS = ["app:app", "--log-level", "warning"]
STARTS = {
    "console script": [UVICORN, *OPTIONS],
    "python -m": [sys.executable, "-m", "uvicorn", *OPTIONS],
    "two workers": [UVICORN, *OPTIONS, "--workers", "2"],
    "asyncio's loop": [UVICORN, *OPTIONS, "--loop", "asyncio"],
    "uvicorn.run": [sys.executable, "app.py"],
}


def ask(port, path, *, within_s=150):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=within_s) as answer:
        answer.read()


def wait_for(condition, what, *, server, again=None):
    """Until it is so; `again()` is called where it is not after some seconds."""
    began = time.monotonic()
    end, again_at = began + 150, began + 5
    while time.monotonic() < end and server.poll() is None:
        if condition():
            return
        if again is not None and time.monotonic() > again_at:
            again()
            again_at = time.monotonic() + 5
        time.sleep(0.1)
    pytest.fail(f"waited in vain for {what}; the server has ended with {server.poll()}")


def answers(port):
    try:
        ask(port, "/ready", within_s=5)  # the socket is open, whoever has ended
    except OSError:
        return False
    return True


@pytest.fixture(params=STARTS.values(), ids=STARTS)
def reports(request, tmp_path):
    """What a server that was started in this way says of a block at each of two paths."""
    import socket

    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "log"
    with socket.socket() as listener, log.open("w") as out:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port, fd = listener.getsockname()[1], listener.fileno()
        last = [str(fd)] if request.param[-1] == "app.py" else ["--fd", str(fd)]
        server = subprocess.Popen(
            [*request.param, *last], cwd=tmp_path, stdout=out, stderr=out, pass_fds=[fd],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | SOON, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: answers(port), "the server", server=server)
            said = {}
            for path, end in (("/big", "serialize_response"), ("/sleep", "time.sleep")):
                ask(port, path)
                wait_for(
                    lambda end=end: re.search(rf"was blocked for .*{end}", log.read_text()),
                    f"a report of {path} that ends with {end}: {log.read_text()}",
                    server=server,
                    # Not every block is told as one where the machine holds the process up, too.
                    again=lambda path=path: ask(port, path),
                )
                said[path] = log.read_text()
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)
    return said


def test_each_start_blames_the_framework_for_a_large_answer_and_the_app_for_its_own_line(reports):
    ended = [line for line in reports["/sleep"].splitlines() if "was blocked for" in line]
    big = [line for line in ended if "jsonable_encoder" in line]
    own = [line for line in ended if "time.sleep(0.8)" in line]
    assert big, ended
    assert own, ended
    for line in big:
        assert "; no line of the app's own was at work: " in line
        assert re.search(r"fastapi/encoders\.py:\d+ in jsonable_encoder", line)
        assert re.search(r"called from .+fastapi/routing\.py:\d+ in serialize_response", line)
    assert re.search(r"blocked for \S+ s by .+/app\.py:\d+ in sleep: `time\.sleep", own[0])
    innocent = ("bin/uvicorn", "click/", "uvicorn.run", "perf_middleware/metrics", "dataclasses.py")
    assert not [line for line in big + own if any(name in line for name in innocent)]

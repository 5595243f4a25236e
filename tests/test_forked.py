"""A fork of the helper is to a command what a process of its own is: both are looked at here."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests import forked

S_MAX = 120.0
LOOK = """
import json, os, signal, sys, threading
import fastapi
print(json.dumps({
    "arguments": sys.argv,
    "directory": os.getcwd(),
    "environment": sorted(os.environ),
    "descriptors": sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else None,
    "signals": [str(signal.getsignal(each)) for each in (2, 13, 15, 17)],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "threads": threading.active_count(),
    "name": __name__,
}))
print("to the other", file=sys.stderr)
"""


def outcome(process):
    """How it ends, once it has."""
    try:
        return process.wait(S_MAX)
    finally:
        process.kill()


@pytest.fixture(params=[forked.start, forked.start_anew], ids=["forked", "anew"])
def start(request):
    return request.param


def test_it_finds_what_a_start_finds(tmp_path):
    environment = {"ONE": "1"}
    found = forked.run(
        ["-c", LOOK, "first", "second"], env=environment, cwd=tmp_path, timeout=S_MAX
    )
    expected = subprocess.run(
        [sys.executable, "-c", LOOK, "first", "second"], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=S_MAX, check=True, stdin=subprocess.DEVNULL,
        # A shell starts what runs in the background with SIGINT ignored, and so all below it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    told, told_anew = json.loads(found.stdout), json.loads(expected.stdout)
    # Set by Python itself at a start in the C locale.
    told_anew["environment"] = [name for name in told_anew["environment"] if name != "LC_CTYPE"]
    assert told == told_anew
    assert (found.returncode, found.stderr) == (0, expected.stderr)


def test_two_of_them_do_not_draw_the_same():
    drawn = {
        forked.run(["-c", "import random; print(random.random())"], timeout=S_MAX).stdout
        for _ in range(2)
    }
    assert len(drawn) == 2


def test_what_one_sets_the_next_does_not_see():
    forked.run(["-c", "import fastapi; fastapi.left = 1"], timeout=S_MAX)
    seen = forked.run(["-c", "import fastapi; print(hasattr(fastapi, 'left'))"], timeout=S_MAX)
    assert seen.stdout == "False\n"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        pytest.param("", 0, id="well"),
        pytest.param("raise SystemExit(3)", 3, id="with a code"),
        pytest.param("1/0", 1, id="with an error"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, id="killed"),
        pytest.param("raise KeyboardInterrupt", -2, id="interrupted"),
    ],
)
def test_its_end_is_told(start, code, end):
    assert outcome(start(["-c", code], stderr=subprocess.DEVNULL)) == end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_can_be_ended_while_others_live(start, number):
    other = start(["-c", "input()"], stdin=subprocess.PIPE)
    process = start(["-c", "input()"], stdin=subprocess.PIPE)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.send_signal(number)
    assert outcome(process) == -number
    process.send_signal(number)  # nobody is there any more
    assert other.poll() is None
    other.stdin.write("\n")
    other.stdin.close()
    assert outcome(other) == 0
    process.stdin.close()


def test_it_leads_a_session_of_its_own():
    process = forked.start(["-c", "input()"], stdin=subprocess.PIPE)
    assert os.getsid(process.pid) in {process.pid, os.getsid(0)}
    process.stdin.close()
    outcome(process)


def test_it_reads_and_writes_through_pipes(start):
    process = start(
        ["-c", "print(input(), flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == "hello\n"
    process.stdin.close()  # the only one that writes there
    assert outcome(process) == 1
    assert process.stdout.read() == ""
    process.stdout.close()


def test_it_has_the_descriptors_that_it_was_given(start):
    code = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).accept()[0].send(b'here')"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        process = start(["-c", code, str(fd)], pass_fds=[fd])
        with socket.create_connection(listener.getsockname(), timeout=S_MAX) as client:
            assert client.recv(4) == b"here"
    assert outcome(process) == 0


def test_a_script_and_a_module_run_as_main(tmp_path):
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    (tmp_path / "looks.py").write_text(
        "import sys, beside\nprint(__name__, sys.argv[1:], sys.modules['__main__'].beside.NAME)\n"
    )
    for how in (["looks.py"], ["-m", "looks"]):
        said = forked.run([*how, "1"], cwd=tmp_path, timeout=S_MAX)
        assert said.stdout == "__main__ ['1'] beside\n", said

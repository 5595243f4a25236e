"""May a worker finish now: the rules by tables, the turn over real locks, each step told once."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.events import WorkerFinishing
from perf_middleware.memory_watch.finish.drivers.process import (
    send_to_self,
    sibling_bytes,
    signal_heeded,
)
from perf_middleware.memory_watch.finish.drivers.turn import (
    DrawnTurn,
    LockedTurn,
    file_name_of,
    turn_of,
)
from perf_middleware.memory_watch.finish.runtime import Finisher
from perf_middleware.memory_watch.finishing import (
    CRITICAL_LOOKS_MIN,
    REASONS,
    Lasting,
    Standing,
    gap_left_us,
    held_back,
    is_shared,
    is_sibling,
)
from perf_middleware.memory_watch.reading import Bound, MemorySample
from perf_middleware.memory_watch.shedding import CRITICAL, HARD, SOFT
from tests.examples.servers import eventually

US = 1_000_000
MB = 1 << 20
ROOT = Path(__file__).parents[2]


# --- the rules ------------------------------------------------------------------------------------


STUCK_US = 10 * US


def causes(*looks, settle_us=0):
    lasting = Lasting(settle_us=settle_us, stuck_us=STUCK_US)
    return [lasting.note(step, at_us=at_us, refused=refused) for step, at_us, refused in looks]


def test_critical_must_last_for_some_looks():
    looks = [(CRITICAL, second * US, 0) for second in range(CRITICAL_LOOKS_MIN)]
    assert causes(*looks) == [None] * (CRITICAL_LOOKS_MIN - 1) + ["critical"]
    again = [*looks[:-1], (HARD, 5 * US, 0), *looks[:-1]]
    assert causes(*again) == [None] * len(again)


def test_critical_must_last_until_a_cleanup_has_surely_ended():
    looks = [(CRITICAL, tenth * US // 10, 0) for tenth in range(12)]
    assert causes(*looks, settle_us=US) == [None] * 10 + ["critical"] * 2


@pytest.mark.parametrize(
    ("refused", "step", "cause"),
    [
        pytest.param(9, HARD, "stuck", id="who only refuses does not get better by itself"),
        pytest.param(0, HARD, None, id="who had nobody to refuse does no harm"),
        pytest.param(None, HARD, None, id="who lets some in goes on for them"),
        pytest.param(9, SOFT, None, id="soft is no reason"),
    ],
)
def test_who_refuses_at_hard_for_long_finishes_as_well(refused, step, cause):
    assert causes((step, 0, 0), (step, STUCK_US - 1, refused), (step, STUCK_US, refused)) == [
        None, None, cause,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        pytest.param({}, None, id="an old worker without siblings may"),
        pytest.param({"uptime_us": 59 * US}, "young", id="a young one would start over and over"),
        pytest.param({"is_heeded": False}, "unhandled", id="nobody would drain the requests"),
        pytest.param({"is_futile": True}, "futile", id="a fresh one would be as full"),
        pytest.param({"sibling_bytes": (99, 101)}, None, id="the mean of the others may"),
        pytest.param({"sibling_bytes": (100, 101)}, "smaller", id="the larger ones go first"),
    ],
)
def test_a_worker_may_ask_for_its_turn_by_its_standing(standing, reason):
    given_ = {"uptime_us": 60 * US, "own_bytes": 100, **standing}
    assert held_back(Standing(**given_), uptime_us_min=60 * US) == reason


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=9))
def test_among_siblings_there_is_always_one_that_may_go(sizes):
    def is_free(number):
        others = tuple(sizes[:number] + sizes[number + 1 :])
        standing = Standing(uptime_us=0, own_bytes=sizes[number], sibling_bytes=others)
        return held_back(standing, uptime_us_min=0) is None

    assert is_free(sizes.index(max(sizes)))


@pytest.mark.parametrize(
    ("ended_us", "left_us"),
    [
        pytest.param(None, 0, id="nobody has ended yet"),
        pytest.param(90, 20, id="the rest of the pause"),
        pytest.param(70, 0, id="it is over"),
        pytest.param(101, 0, id="a time from before this host started again says nothing"),
    ],
)
def test_between_two_ends_there_is_a_pause(ended_us, left_us):
    assert gap_left_us(now_us=100, ended_us=ended_us, gap_us=30) == left_us


SPAWNED = ["python", "-c", "spawn_main(tracker_fd=5, pipe_handle=7)", "--multiprocessing-fork"]


@pytest.mark.parametrize(
    ("command", "own", "alike"),
    [
        pytest.param(
            [*SPAWNED[:2], "spawn_main(tracker_fd=5, pipe_handle=11)", SPAWNED[3]], SPAWNED, True,
            id="workers that were spawned differ in their pipes",
        ),
        pytest.param(
            ["python", "-c", "from multiprocessing.resource_tracker import main;main(5)"], SPAWNED,
            False, id="multiprocessing's own helper is none",
        ),
        pytest.param(["gunicorn", "shop:app"], ["gunicorn", "shop:app"], True, id="forked workers"),
        pytest.param(["uvicorn", "a:app"], ["uvicorn", "b:app"], False, id="another app"),
        pytest.param([], [], False, id="what cannot be read is nobody's sibling"),
    ],
)  # fmt: skip
def test_siblings_are_told_by_their_command_lines(command, own, alike):
    assert is_sibling(command, own) is alike


def sample(share=0.96, *, rss=600 * MB, name="cgroup"):
    bound = Bound(name=name, used_bytes=int(share * 1_000 * MB), limit_bytes=1_000 * MB)
    return MemorySample(at_us=0, rss_bytes=rss, bounds=(bound,))


def test_only_what_is_shared_makes_siblings_matter():
    names = ("configured", "cgroup", "rlimit_data", "rlimit_as", "system")
    assert [name for name in names if is_shared(sample(name=name))] == ["cgroup", "system"]
    assert not is_shared(MemorySample(at_us=0, rss_bytes=1))


# --- the turn -------------------------------------------------------------------------------------

HOLDER = """
import sys
from perf_middleware.memory_watch.finish.drivers.turn import LockedTurn
from pathlib import Path
turn = LockedTurn("shop", directory=Path(sys.argv[1]), gap_us=0)
print(turn.take(int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


def hold(directory, now_us):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), str(now_us)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "None\n"
    return holder


def test_a_turn_is_one_process_s_until_it_is_gone_however_it_ends(tmp_path):
    holder = hold(tmp_path, 1 * US)
    with holder:
        waiting = LockedTurn("shop", directory=tmp_path, gap_us=10 * US)
        late = LockedTurn("shop", directory=tmp_path, gap_us=10 * US)
        other = LockedTurn("stock", directory=tmp_path, gap_us=10 * US)
        try:
            assert other.take(2 * US) is None
            assert waiting.take(50 * US) == "turn"
        finally:
            holder.kill()
            holder.wait()
    # It was seen alive at 50 s: for who waited the pause counts from there.
    assert waiting.take(59 * US) == "gap"
    assert late.take(10 * US) == "gap"  # asked to end at 1 s: for who comes later, from that
    assert late.take(11 * US) is None
    assert waiting.take(61 * US) == "turn"
    late.give_back()
    assert waiting.take(70 * US) == "gap"
    assert waiting.take(72 * US) is None
    assert waiting.take(72 * US) is None  # it has it
    waiting.give_back()
    other.give_back()


@pytest.mark.parametrize("written", [b"", b"soon", b"\xff" * 99, b"9" * 400])
def test_a_file_that_says_nothing_stops_nobody(tmp_path, written):
    (tmp_path / "shop.turn").write_bytes(written)
    turn = LockedTurn("shop", directory=tmp_path, gap_us=10 * US)
    assert turn.take(5 * US) is None
    turn.give_back()
    assert (tmp_path / "shop.turn").read_bytes() == b"5000000"


def test_nobody_s_link_is_followed_and_no_directory_of_others_is_used(tmp_path, monkeypatch):
    (tmp_path / "shop.turn").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        LockedTurn("shop", directory=tmp_path, gap_us=0).take(1)
    assert not (tmp_path / "elsewhere").exists()

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = tmp_path / f"perf_middleware-{os.geteuid()}"
    turn = turn_of("shop", directory=None, gap_us=0)
    assert turn.take(1) is None
    turn.give_back()
    assert own.stat().st_mode & 0o077 == 0
    own.chmod(0o777)
    with pytest.raises(PermissionError, match="writable for other users"):
        turn.take(1)


FORKING = """
import os, sys
from pathlib import Path
from perf_middleware.memory_watch.finish.drivers.turn import LockedTurn
turn = LockedTurn("shop", directory=Path(sys.argv[1]), gap_us=0)
print(turn.take(1), flush=True)
if os.fork():
    os._exit(0)
sys.stdin.read()
"""


def test_a_forked_child_does_not_keep_the_turn_of_a_worker_that_is_gone(tmp_path):
    worker = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with worker:  # the end of its input ends the child
        assert worker.stdout.readline() == "None\n"
        assert worker.wait(10) == 0
        turn = LockedTurn("shop", directory=tmp_path, gap_us=0)
        eventually(lambda: turn.take(2) is None, what="the turn is free")
        turn.give_back()


@pytest.mark.parametrize(
    ("service", "name"),
    [
        pytest.param("shop-1", "shop-1.turn", id="a plain name"),
        pytest.param("../etc", "___etc_f7f9121f.turn", id="no way out of the directory"),
        pytest.param("", "_e3b0c442.turn", id="no name at all"),
    ],
)
def test_a_service_has_one_file(service, name):
    assert file_name_of(service) == name


def test_without_locks_a_worker_waits_for_a_time_it_has_drawn():
    turn = DrawnTurn(gap_us=30 * US, random=lambda: 0.5)
    assert [turn.take(at * US) for at in (100, 114, 115, 116)] == ["gap", "gap", None, None]


# --- the finisher ---------------------------------------------------------------------------------


class Bench:
    """A finisher whose looks the test takes itself, one each second."""

    def __init__(self, **options):
        self.now_us = 0
        self.calls = []
        self.answers = []
        self.siblings = ()
        self.sibling_looks = 0
        self.given_back = 0
        self.events = []
        given_ = {"uptime_us_min": 0, "siblings": self.look_beside, **options}
        self.finisher = Finisher(
            given_.pop("finish", lambda: self.calls.append(self.now_us)),
            turn=self,
            clock=lambda: self.now_us,
            **given_,
        )
        self.finisher.on_change = self.events.append
        self.finisher.in_flight = lambda: 2

    def take(self, now_us):
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def give_back(self):
        self.given_back += 1

    def look_beside(self):
        self.sibling_looks += 1
        return self.siblings

    def feed(self, count, step=CRITICAL, **options):
        for _ in range(count):
            self.now_us += US
            self.finisher.looked(step, sample(**options), refused=None)
        return self.finisher.reason


def value_of(finisher, name, **labels):
    [family] = [family for family in finisher.families() if family.name == name]
    [value] = [p.value for p in family.points if p.labels.pairs == tuple(labels.items())]
    return value


def test_it_asks_once_and_says_so_once_with_bytes_and_share(caplog):
    bench = Bench()
    with caplog.at_level(logging.INFO, "perf_middleware.memory_watch"):
        bench.feed(10)
    assert bench.calls == [3 * US]
    assert bench.finisher.finishing
    [said] = [record.getMessage() for record in caplog.records]
    assert said == (
        "memory is critical (96% of the cgroup limit, 960.0 MiB of 1000.0 MiB): "
        "this worker (600.0 MiB) finishes, 2 requests are in flight"
    )
    assert caplog.records[0].levelname == "WARNING"
    assert bench.events == [
        WorkerFinishing(
            cause="critical", rss_bytes=600 * MB, share=0.96, bound="cgroup", in_flight=2
        )
    ]
    assert value_of(bench.finisher, "perf_memory_finishing") == 1
    assert value_of(bench.finisher, "perf_memory_finishes") == 1


def test_who_may_not_is_told_once_for_each_reason_and_counted_each_time(caplog):
    bench = Bench(uptime_us_min=5 * US)
    bench.answers = ["turn", "turn", "gap", OSError("no space"), None]
    bench.siblings = (900 * MB,)
    assert bench.feed(5) == "young"
    assert bench.feed(2) == "smaller"
    bench.siblings = ()
    assert [bench.feed(1) for _ in range(5)] == ["turn", "turn", "gap", "failed", None]
    assert bench.finisher.status()["refused"] == {
        "young": 3, "smaller": 2, "turn": 2, "gap": 1, "failed": 1,
    }  # fmt: skip
    assert set(bench.finisher.status()["refused"]) <= set(REASONS)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "cannot finish yet" in line]) == 5
    assert said[-1].startswith("memory is critical")
    assert value_of(bench.finisher, "perf_memory_finish_refusals", reason="young") == 3
    bench.finisher.reset_counts()
    assert value_of(bench.finisher, "perf_memory_finish_refusals", reason="young") == 0
    json.dumps(bench.finisher.status())


@pytest.mark.parametrize(
    ("name", "at_start", "reason"),
    [
        pytest.param("configured", 0.97, "futile", id="below what it needs at its start"),
        pytest.param("rlimit_as", 0.95, "futile", id="a resource limit as well"),
        pytest.param("configured", 0.9, None, id="it has grown since"),
        pytest.param("cgroup", 0.97, None, id="others may have filled a shared one"),
    ],
)
def test_a_worker_that_began_as_full_goes_on_and_says_why(name, at_start, reason, caplog):
    bench = Bench(shares=(0.88, 0.95))
    for share in (at_start, *[0.97] * 5):
        bench.now_us += US
        bound = Bound(name=name, used_bytes=round(share * 1000), limit_bytes=1000)
        bench.finisher.looked(
            CRITICAL, MemorySample(at_us=0, rss_bytes=1, bounds=(bound,)), refused=None
        )
    assert bench.finisher.reason == reason
    assert bench.finisher.finishing is (reason is None)
    said = [record.getMessage() for record in caplog.records]
    assert any("the limit is below what it needs at its start" in line for line in said) is (
        reason is not None
    )


def test_a_limit_of_its_own_is_its_own_affair():
    bench = Bench()
    bench.siblings = (900 * MB,)
    bench.feed(5, name="configured")
    assert (bench.calls, bench.sibling_looks) == ([3 * US], 0)


def test_memory_that_came_back_begins_anew(caplog):
    bench = Bench(uptime_us_min=100 * US)
    bench.feed(4)
    assert bench.feed(1, SOFT) is None
    bench.feed(3)
    assert len([r for r in caplog.records if "cannot finish" in r.getMessage()]) == 2


def test_a_hook_that_fails_leaves_the_worker_as_it_was_for_a_while(caplog):
    calls = []

    def finish():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no server")

    bench = Bench(finish=finish)
    assert bench.feed(4) == "failed"
    assert (bench.finisher.finishing, bench.given_back) == (False, 1)
    bench.feed(25)
    assert len(calls) == 1
    bench.feed(10)
    assert (bench.finisher.finishing, len(calls)) == (True, 2)
    assert value_of(bench.finisher, "perf_memory_finish_failures") == 1


def test_who_is_told_and_fails_keeps_nobody_from_finishing(caplog):
    bench = Bench()
    bench.finisher.on_change = lambda event: 1 / 0
    bench.feed(3)
    assert bench.calls == [3 * US]
    assert value_of(bench.finisher, "perf_memory_finish_failures") == 1


def test_a_drain_that_takes_long_is_said_once(caplog):
    bench = Bench()
    bench.feed(200)
    lines = [r.getMessage() for r in caplog.records if "still here" in r.getMessage()]
    assert len(lines) == 1
    assert "asked to finish 60 s ago" in lines[0]


def test_a_process_in_which_nobody_heeds_the_signal_is_left_alone():
    is_heeded = signal_heeded("SIGTERM")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not is_heeded()
    assert not signal_heeded("SIGOFFWORLD")()
    send_to_self("SIGOFFWORLD")()
    bench = Bench(is_heeded=is_heeded)
    assert bench.feed(5) == "unhandled"
    assert bench.calls == []


def test_the_signal_reaches_the_main_thread_from_the_watch_s():
    heard = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.set())
    try:
        assert signal_heeded("SIGTERM")()
        thread = threading.Thread(target=send_to_self("SIGTERM"))
        thread.start()
        thread.join()
        assert heard.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_children_of_one_parent_see_each_other_and_no_helper():
    ask = (
        "import sys; from perf_middleware.memory_watch.finish.drivers.process import sibling_bytes;"
        "print('up', flush=True); sys.stdin.readline(); print(sibling_bytes(), flush=True);"
        "sys.stdin.readline()"
    )

    def child(code, *numbers):
        return subprocess.Popen(
            [sys.executable, "-c", code, *numbers],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    with child(ask, "1") as one, child(ask, "2") as two, child("input()", "3") as helper:
        for each in (one, two):
            assert each.stdout.readline() == "up\n"
        one.stdin.write("\n")
        one.stdin.flush()
        [bytes_] = json.loads(one.stdout.readline().replace("(", "[").replace(",)", "]"))
        assert bytes_ > MB
        for each in (one, two, helper):
            each.stdin.write("\n\n")
            each.stdin.close()
    assert isinstance(sibling_bytes(), tuple)

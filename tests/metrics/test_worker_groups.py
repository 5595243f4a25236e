"""Finding the group in real processes, and clearing away after groups that have ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perf_middleware.metrics.stores import processes
from perf_middleware.metrics.stores.directory import RETIRED, SnapshotDirectory
from perf_middleware.metrics.stores.ended import GROUPS_MAX, remove_ended_groups
from perf_middleware.metrics.workers.groups import Place, place_of

ROOT = Path(__file__).parents[2]
SHOW_PLACE = (
    "from perf_middleware.metrics.workers.groups import place_of\n"
    "from perf_middleware.metrics.stores.processes import surroundings\n"
    "print(place_of(surroundings(None), service='shop'))\n"
)
SPAWN = (
    "import multiprocessing, runpy, sys\n"
    "if __name__ == '__main__':\n"
    "    spawn = multiprocessing.get_context('spawn')\n"
    "    for _ in range(2):\n"
    "        child = spawn.Process(target=runpy.run_path, args=(sys.argv[1],))\n"
    "        child.start()\n"
    "        child.join()\n"
)


def run(*arguments, **environment):
    env = {k: v for k, v in os.environ.items() if k not in ("SERVER_SOFTWARE", "XDG_RUNTIME_DIR")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env | {"PYTHONPATH": str(ROOT)} | environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_a_process_started_by_hand_is_alone():
    assert run("-c", SHOW_PLACE) == ["None"]


def test_a_worker_of_gunicorn_meets_the_others_under_its_arbiter(tmp_path):
    here = processes.mark_of(os.getpid())
    (found,) = run("-c", SHOW_PLACE, SERVER_SOFTWARE="gunicorn/23", XDG_RUNTIME_DIR=str(tmp_path))
    assert found == str(
        Place(f"{tmp_path}/perf_middleware-{os.geteuid()}", f"shop-{here.text}.v1", True)
    )


def test_spawned_workers_meet_under_the_process_that_spawned_them(tmp_path):
    show, spawn = tmp_path / "show.py", tmp_path / "spawn.py"
    show.write_text(SHOW_PLACE)
    spawn.write_text(SPAWN)
    one, two = run(spawn, show, XDG_RUNTIME_DIR=str(tmp_path))
    assert one == two
    assert "name='shop-" in one
    assert run(spawn, show, XDG_RUNTIME_DIR=str(tmp_path))[0] != one, "another parent"


def test_a_runtime_directory_that_is_none_gives_way_to_the_next_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    memory, missing = tmp_path / "memory", str(tmp_path / "missing")
    memory.mkdir()
    for wrong in ("relative", missing, ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", wrong)
        monkeypatch.setattr(processes, "_MEMORY", str(memory))
        assert processes.surroundings(None).runtime_dir == str(memory)
        monkeypatch.setattr(processes, "_MEMORY", missing)
        assert processes.surroundings(None).runtime_dir == str(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)


def test_nowhere_to_write_is_told_by_who_writes_and_keeps_no_process_from_looking_around(
    monkeypatch, tmp_path
):
    """A fixed bug: on a read-only root without /dev/shm the exchange was given up for good, and a
    process alone, which needs no directory, was told that too.
    """

    def none_usable() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none_usable)
    monkeypatch.setattr(processes, "_MEMORY", str(tmp_path / "missing"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    seen = processes.surroundings(None)
    assert Path(seen.runtime_dir).is_absolute()
    assert place_of(seen, service="shop") is None


def test_a_process_is_marked_by_its_start_and_one_that_ended_is_not_there(monkeypatch, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = processes.mark_of(child.pid)
    assert mark.pid == child.pid
    assert mark == processes.mark_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.mark_of(child.pid) is None, "a zombie is no process"
    child.communicate()
    assert processes.mark_of(child.pid) is None
    # Where there is no /proc, psutil knows.
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert processes.mark_of(os.getpid()).boot == "0"
    assert processes.start_of(os.getpid()) > 10**15
    assert processes.start_of(child.pid) is None


def directories(base):
    return sorted(path.name for path in base.iterdir())


def group_of(parent: str, base: Path) -> SnapshotDirectory:
    return SnapshotDirectory(Place(str(base), f"shop-{parent}.v1", True))


def test_directories_of_ended_groups_are_removed_a_few_at_a_time(tmp_path):
    here = processes.mark_of(os.getpid())
    (tmp_path / "base").mkdir(mode=0o700)
    base = tmp_path / "base"
    place = Place(str(base), f"shop-{here.text}.v1", True)
    SnapshotDirectory(place).close()
    ended = [f"{here.pid}-{n}-{here.boot}-{here.namespace}" for n in range(1, GROUPS_MAX + 4)]
    for mark in ended:
        group = group_of(mark, base)
        group.publish(b"figures")
        group.replace_retired(b"figures")
        group.close()
    with_stranger = base / f"shop-{ended[0]}.v1"
    (with_stranger / "notes").write_text("not ours")
    living = group_of(ended[1], base)
    living.publish(b"figures")
    (base / "something else").mkdir()

    assert remove_ended_groups(place) == GROUPS_MAX - 2
    left = directories(base)
    assert {place.name, with_stranger.name, "something else", f"shop-{ended[1]}.v1"} <= set(left)
    assert living.read_retired() == b"figures"
    living.close()
    while remove_ended_groups(place):
        pass
    assert directories(base) == sorted([place.name, with_stranger.name, "something else"])
    assert directories(with_stranger) == ["notes"]


def forked_child():
    """A child that does nothing until it is killed."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


# Beside the threads of the test run: from Python 3.15 on an error, and the child goes on alone.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_no_lock_of_its_parent(tmp_path):
    place = Place(str(tmp_path), "shop.v1", False)
    parent, other = SnapshotDirectory(place), SnapshotDirectory(place)
    assert parent.try_lock()
    child = forked_child()
    try:
        parent.unlock()
        assert other.try_lock(), "given back, whoever has the descriptor as well"
    finally:
        end(child)
        other.unlock()
        parent.close()
        other.close()


@pytest.mark.parametrize("when", ["before the rename", "after it"])
def test_a_child_forked_while_its_parent_publishes_does_not_keep_it_alive(tmp_path, when):
    """The parent dies without a word: nobody but the child could keep its lock."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from perf_middleware.metrics.stores.directory import SnapshotDirectory\n"
        "from perf_middleware.metrics.workers.groups import Place\n"
        "rename = os.rename\n"
        "def forks(*args, **options):\n"
        "    if sys.argv[2] == 'after it': rename(*args, **options)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.closerange(0, 3)\n"
        "        time.sleep(60)\n"
        "        os._exit(0)\n"
        "    print(child, flush=True)\n"
        "    if sys.argv[2] != 'after it': rename(*args, **options)\n"
        "os.rename = forks\n"
        "SnapshotDirectory(Place(sys.argv[1], 'shop.v1', False)).publish(b'figures')\n"
        "os._exit(0)\n"
    )
    (child,) = run(script, tmp_path, when)
    watcher = SnapshotDirectory(Place(str(tmp_path), "shop.v1", False))
    try:
        look = watcher.look()
        assert (len(look.alive), len(look.dead)) == (0, 1)
    finally:
        os.kill(int(child), signal.SIGKILL)
        watcher.close()


def test_nothing_is_removed_beside_the_operators_directory(tmp_path):
    ended = group_of("1-1-ffffffff-0", tmp_path)
    ended.close()
    assert remove_ended_groups(Place(str(tmp_path), "shop.v1", False)) == 0
    assert directories(tmp_path) == ["shop-1-1-ffffffff-0.v1"]


def test_after_the_last_worker_one_file_is_left(tmp_path):
    directory = SnapshotDirectory(Place(str(tmp_path), "shop.v1", False))
    directory.publish(b"figures")
    directory.leave()
    assert directory.try_lock()
    directory.replace_retired(b"all figures")
    directory.remove((directory.name,))
    directory.close()
    directory.close()
    assert directories(tmp_path / "shop.v1") == [RETIRED]


def test_this_process_is_in_no_group_by_itself(monkeypatch):
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert multiprocessing.parent_process() is None
    assert place_of(processes.surroundings(None), service="shop") is None

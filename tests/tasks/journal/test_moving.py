"""A journal whose files are taken away while it is used."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from sqlite3 import OperationalError

import pytest

from perf_middleware import JournalUnavailableError
from perf_middleware.tasks.journal.entries import JournalLimits
from perf_middleware.tasks.journal.stores import owners, sqlite
from perf_middleware.tasks.journal.stores.sqlite import SqliteJournal
from tests.tasks.journal.test_store import accept, done

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "journal").mkdir()
    return tmp_path / "journal"


@pytest.fixture
def store_of(folder):
    made = []

    def make(name="tasks.db"):
        store = SqliteJournal(folder / name, JournalLimits())
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def remove(*ends):
    def take(folder):
        for end in ends:
            (folder / f"tasks.db{end}").unlink()

    return take


def remove_all(folder):
    for file in folder.glob("tasks.db*"):
        file.unlink()


def rename(folder):
    (folder / "tasks.db").rename(folder / "yesterday.db")


def empty(folder):
    (folder / "tasks.db").write_bytes(b"")


def replace_by_a_copy(folder):
    shutil.copy(folder / "tasks.db", folder / "copy")
    (folder / "copy").replace(folder / "tasks.db")


def tasks_in(store):
    rows = store._file.execute("SELECT number, task FROM entries ORDER BY number").fetchall()
    assert store._file.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    (entries,) = store._file.execute("SELECT entries FROM room").fetchone()
    assert entries == len(rows)
    return dict(rows)


@pytest.mark.parametrize(
    "take",
    [
        pytest.param(remove(""), id="the file"),
        pytest.param(remove("-wal"), id="its write-ahead log"),
        pytest.param(remove("-shm"), id="its index"),
        pytest.param(remove_all, id="all, the owners' too"),
        pytest.param(empty, id="emptied"),
        pytest.param(rename, id="moved"),
        pytest.param(replace_by_a_copy, id="replaced by a copy"),
    ],
)
def test_what_was_accepted_is_carried_over_by_each_process(store_of, folder, caplog, take):
    first, second, third = (store_of() for _ in range(3))
    mine, dead, theirs = accept(first, "mine"), accept(first, "dead"), accept(second, "theirs")
    left = accept(third, "left")
    done(first, lambda store: store.bury(dead, "why"))
    done(third, lambda store: store.hand_back())
    take(folder)
    late = accept(second, "late")  # who comes first begins the new file
    own = accept(first, "own")
    expected = {
        mine.number: "mine", dead.number: "dead", theirs.number: "theirs", left.number: "left",
        late.number: "late", own.number: "own",
    }  # fmt: skip
    assert len(expected) == 6
    assert tasks_in(first) == expected
    assert [each.reason for each in done(first, lambda store: store.dead_letters(9))] == ["why"]
    for entry, store in ((mine, first), (theirs, second)):  # as if nothing had happened
        assert owners.lives(folder / "tasks.db", entry.owner)
        done(store, lambda store, entry=entry: store.remove(entry))
    third.close()
    third.open()  # as at the next start
    assert set(tasks_in(third).values()) == {"dead", "left", "late", "own"}
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(told) == 2
    assert "was deleted, moved or replaced while the journal of tasks was open" in told[0]


def test_numbers_that_another_file_has_are_not_mixed_up(store_of, folder):
    store, other = store_of(), store_of("other.db")
    mine = accept(store, "mine")
    assert accept(other, "others").number == mine.number
    other.close()
    (folder / "other.db").replace(folder / "tasks.db")
    accept(store, "more")
    assert sorted(tasks_in(store).values()) == ["mine", "more", "others"]
    done(store, lambda file: file.remove(mine))  # not what has its number there
    assert sorted(tasks_in(store).values()) == ["mine", "more", "others"]


def test_where_no_file_can_be_made_it_is_told_and_nothing_is_lost(store_of, folder):
    store = store_of()
    accept(store, "mine")
    shutil.rmtree(folder)
    for _ in range(2):
        with pytest.raises(JournalUnavailableError, match="No such file"):
            accept(store, "refused")
    folder.mkdir()
    accept(store, "again")
    assert sorted(tasks_in(store).values()) == ["again", "mine"]


def test_what_a_killed_process_has_left_is_carried_over_though_the_first_try_fails(
    store_of, folder, monkeypatch
):
    store, killed = store_of(), store_of()
    accept(store, "mine")
    accept(killed, "left")
    killed._owner.forget()  # its lock is gone as at a kill, its file is there
    rename(folder)
    with monkeypatch.context() as once:
        once.setattr(sqlite, "carry_over", disk_is_full)
        with pytest.raises(JournalUnavailableError, match="full"):
            accept(store, "refused")
    accept(store, "again")
    assert sorted(tasks_in(store).values()) == ["again", "left", "mine"]
    claimed = done(store, lambda file: file.claim(10))
    assert [each.task for each in claimed] == ["left"]


def disk_is_full(*_):
    raise OperationalError("database or disk is full")


def test_an_owner_whose_file_was_deleted_takes_it_again(store_of, folder):
    store, other = store_of(), store_of()
    accept(store)
    for file in folder.glob("*-owner-*"):
        file.unlink()
    done(store, lambda file: file.picture())  # a look
    assert done(other, lambda file: file.claim(10)) == []
    store.close()
    assert len(done(other, lambda file: file.claim(10))) == 1


STARTS = """
import sys; from pathlib import Path
from perf_middleware.tasks.journal.entries import JournalLimits
from perf_middleware.tasks.journal.stores.sqlite import SqliteJournal
store = SqliteJournal(Path(sys.argv[1]), JournalLimits())
store.run([lambda file: file.accept("new", b"[[],{}]", "")], is_synced=True)
print(store._file.execute("PRAGMA quick_check").fetchall())
"""


def test_a_start_reads_nothing_of_what_a_deleted_file_has_left_beside_it(store_of, folder):
    store = store_of()
    for number in range(50):
        accept(store, f"old {number}")
    (folder / "tasks.db").unlink()
    started = subprocess.run(
        [sys.executable, "-c", STARTS, folder / "tasks.db"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (started.returncode, started.stdout) == (0, "[('ok',)]\n"), started.stderr
    accept(store, "more")
    assert len(tasks_in(store)) == 52

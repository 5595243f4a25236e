"""The journal's file: whole, foreign, broken, full, read-only; its owners, alive and gone."""

import os
import socket
import sqlite3
from contextlib import closing

import pytest

from perf_middleware import JournalFullError, JournalUnavailableError
from perf_middleware.tasks.journal.entries import JournalLimits
from perf_middleware.tasks.journal.stores import owners
from perf_middleware.tasks.journal.stores.sqlite import SqliteJournal


@pytest.fixture
def store_of(tmp_path):
    made = []

    def make(name="tasks.db", **limits):
        store = SqliteJournal(tmp_path / name, JournalLimits(**limits))
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def done(store, step, *, is_synced=False):
    (given,) = store.run([step], is_synced=is_synced)
    return given


def accept(store, task="note", arguments=b"[[],{}]"):
    return done(store, lambda file: file.accept(task, arguments, "GET /"), is_synced=True)


def test_entries_are_there_after_the_file_is_opened_again(store_of):
    store = store_of()
    entry = accept(store)
    assert done(store, lambda file: file.own_after(0, 10)) == [entry]
    store.close()
    (again,) = done(store_of(), lambda file: file.claim(10))
    assert (again.number, again.task, again.arguments, again.made_by, again.starts) == (
        entry.number, "note", b"[[],{}]", "GET /", 0,
    )  # fmt: skip


def test_a_dead_letter_has_a_reason_that_can_be_read_whatever_an_error_said(store_of):
    """It stayed in the file, ran again at each start, and failed what was asked for beside it."""
    store = store_of()
    poisoned, beside = accept(store), accept(store)
    steps = [lambda file: file.bury(poisoned, "no \ud800"), lambda file: file.remove(beside)]
    store.run(steps, is_synced=False)
    (letter,) = done(store, lambda file: file.dead_letters(9))
    assert (letter.number, letter.reason) == (poisoned.number, "no \\ud800")
    assert done(store, lambda file: file.own_after(0, 10)) == []


def test_only_what_is_accepted_is_synced(store_of):
    store = store_of()

    def synchronous():
        return store._file.execute("PRAGMA synchronous").fetchone()[0]

    entry = accept(store)
    assert synchronous() == 2  # FULL
    done(store, lambda file: file.begin(entry))
    assert synchronous() == 1  # NORMAL
    unsynced = SqliteJournal(store._path, JournalLimits(), is_synced=False)
    with closing(unsynced):
        accept(unsynced)
        assert unsynced._file.execute("PRAGMA synchronous").fetchone()[0] == 1


def test_a_full_journal_refuses_one_step_and_keeps_the_others(store_of):
    store = store_of(entries_max=2)

    def one(file):
        return file.accept("note", b"[[],{}]", "")

    first, second, third = store.run([one, one, one], is_synced=True)
    assert isinstance(third, JournalFullError)
    assert (third.entries, third.status, third.retry_after_s) == (2, 503, 1)
    store.run([lambda file: file.remove(first)], is_synced=False)
    assert accept(store).number == 3
    assert done(store, lambda file: file.picture()) == (2, 2 * third.kept_bytes // 2, 0)
    assert second.number == 2


def test_it_is_bounded_by_bytes_too(store_of):
    store = store_of(bytes_max=1_000)
    assert accept(store).number == 1
    assert isinstance(accept(store, arguments=b'[["%s"],{}]' % (b"a" * 900)), JournalFullError)


def break_header(file):
    file.write_bytes(b"no database" * 1_000)


def break_pages(file):
    whole = bytearray(file.read_bytes())
    whole[4096:] = b"\x55" * (len(whole) - 4096)
    file.write_bytes(whole)


@pytest.mark.parametrize("damage", [break_header, break_pages])
def test_a_broken_file_is_set_aside_and_told(store_of, tmp_path, caplog, damage):
    store = store_of()
    accept(store)
    store.close()
    file = tmp_path / "tasks.db"
    damage(file)
    broken = file.read_bytes()
    assert accept(store_of()).number == 1
    (aside,) = [
        each
        for each in tmp_path.glob("tasks.db.broken-*")
        if not each.name.endswith(("wal", "shm"))
    ]
    assert aside.read_bytes() == broken
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"was set aside as {aside.name}" in told


def test_what_breaks_while_it_is_used_is_begun_anew_and_old_entries_touch_no_new_ones(
    store_of, tmp_path
):
    store = store_of()
    old = accept(store)
    file = tmp_path / "tasks.db"
    store._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    break_pages(file)
    store._file.execute("PRAGMA shrink_memory")  # what it had read is read again
    with pytest.raises(JournalUnavailableError, match="malformed"):
        accept(store)
    new = accept(store)
    assert new.number == old.number
    assert owners.lives(file, old.owner)  # should the file be whole after all
    done(store, lambda file: file.remove(old))
    assert done(store, lambda file: file.picture())[0] == 1


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE TABLE users (id)", "it is another database, no journal"),
        ("PRAGMA user_version = 7", "it is another database, no journal"),
    ],
)
def test_another_database_is_not_touched(store_of, tmp_path, statement, told):
    file = tmp_path / "tasks.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute(statement)
    before = file.read_bytes()
    with pytest.raises(JournalUnavailableError, match=told):
        accept(store_of())
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*-owner-*"))


def test_a_journal_of_a_newer_program_is_left_alone(store_of):
    store = store_of()
    accept(store)
    store._file.execute("PRAGMA user_version = 2")
    store.close()
    with pytest.raises(
        JournalUnavailableError, match="schema is version 2, and this program knows 1"
    ):
        accept(store_of())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("PRAGMA max_page_count = 1", "database or disk is full"),
        ("PRAGMA query_only = 1", "readonly database"),
    ],
)
def test_what_cannot_be_written_is_refused_and_taken_again_later(store_of, fault, told):
    store = store_of()
    accept(store)
    store._file.execute(fault)
    with pytest.raises(JournalUnavailableError, match=told):
        accept(store, arguments=b'[["%s"],{}]' % (b"a" * 100_000))
    store._file.execute("PRAGMA max_page_count = 1000000")
    store._file.execute("PRAGMA query_only = 0")
    assert accept(store).number > 1


def test_a_file_that_cannot_be_made_is_told(store_of):
    with pytest.raises(JournalUnavailableError, match=r"no/such/tasks\.db"):
        accept(store_of("no/such/tasks.db"))


def test_entries_of_the_living_are_nobody_elses(store_of):
    one, other = store_of(), store_of()
    entry = accept(one)
    assert done(other, lambda file: file.claim(10)) == []
    done(one, lambda file: file.begin(entry))
    one._owner.forget()  # as the kernel does at the end of its process
    (taken,) = done(other, lambda file: file.claim(10))
    assert (taken.number, taken.owner, taken.starts) == (entry.number, other.owner, 1)
    done(one, lambda file: file.remove(entry))  # it is not its own any more
    assert done(other, lambda file: file.own_after(0, 10)) == [taken]


def test_files_of_owners_that_are_gone_are_removed(store_of, tmp_path):
    store = store_of()
    accept(store)
    store._owner.forget()
    other = store_of()
    done(other, lambda file: file.picture())
    assert [file.name for file in tmp_path.glob("*-owner-*")] == [f"tasks.db-owner-{other.owner}"]
    other.close()
    assert not list(tmp_path.glob("*-owner-*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
# Beside the threads of the test run: from Python 3.15 on an error, and the child goes on alone.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_does_not_keep_its_parents_owner_alive(tmp_path):
    path = tmp_path / "tasks.db"
    owner = owners.Owner(path)
    token = owner.take()
    ours, childs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        childs.send(b"I am here")
        childs.recv(1)  # until the parent lets it go
        os._exit(0)
    childs.close()
    try:
        assert ours.recv(10) == b"I am here"
        assert owners.lives(path, token)
        os.close(owner._fd)  # the parent's end: nothing but the child's copy could be left
        owner._fd = None
        assert not owners.lives(path, token)
    finally:
        ours.close()
        os.waitpid(child, 0)

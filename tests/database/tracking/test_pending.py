"""What a commit would bring in, with savepoints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.database.tables.touched import Table
from perf_middleware.database.tracking.pending import ROWS_MAX, Pending


def after(script):
    pending = Pending()
    for step in script.split():
        do, _, name = step.partition(":")
        match do:
            case "write":
                pending.add(frozenset({Table(name)}))
            case "save":
                pending.savepoint(name)
            case "release":
                pending.release(name)
            case "back":
                pending.roll_back_to(name)
    return "".join(sorted(table.name for table in pending.written()))


@pytest.mark.parametrize(
    ("script", "written"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("write:a write:b", "ab", id="no savepoint"),
        pytest.param("write:a save:s write:b release:s", "ab", id="released"),
        pytest.param("write:a save:s write:b back:s", "a", id="rolled back"),
        pytest.param("save:s write:a back:s write:b", "b", id="the savepoint stays"),
        pytest.param("save:s write:a back:s write:b back:s", "", id="and can be used again"),
        pytest.param("save:s write:a save:t write:b back:s", "", id="with all after it"),
        pytest.param("save:s write:a save:t write:b release:t back:s", "", id="released into it"),
        pytest.param("save:s write:a save:s write:b back:s", "a", id="the same name, hidden"),
        pytest.param("write:a back:unknown release:unknown", "a", id="a savepoint nobody knows"),
        pytest.param("save:s write:a save:t write:b release:s", "ab", id="released with the inner"),
    ],
)
def test_a_commit_brings_in_what_was_not_taken_back(script, written):
    assert after(script) == written


@given(st.lists(st.sampled_from(["write", "save", "release", "back"]), max_size=20), st.data())
def test_it_agrees_with_keeping_a_copy_at_each_savepoint(steps, data):
    pending, now, copies = Pending(), set(), []
    for number, step in enumerate(steps):
        name = data.draw(st.sampled_from("st"))
        found = next((i for i in range(len(copies) - 1, -1, -1) if copies[i][0] == name), None)
        if step == "write":
            pending.add(frozenset({Table(f"t{number}")}))
            now.add(Table(f"t{number}"))
        elif step == "save":
            pending.savepoint(name)
            copies.append((name, set(now)))
        elif step == "release":
            pending.release(name)
            if found is not None:
                del copies[found:]
        else:
            pending.roll_back_to(name)
            if found is not None:
                now = set(copies[found][1])
                del copies[found + 1 :]
        assert pending.written() == now


def test_what_is_known_later_belongs_to_the_savepoint_that_it_came_in():
    pending, known = Pending(), []

    def later(name):
        known.append(name)
        return frozenset({Table(name)})

    pending.add_later(lambda: later("a"))
    assert pending
    assert not known
    pending.savepoint("s")
    pending.add_later(lambda: later("b"))
    pending.roll_back_to("s")
    pending.add_later(lambda: later("c"))
    assert {table.name for table in pending.written()} == {"a", "c"}


def test_too_many_rows_are_their_table():
    pending = Pending()
    for key in range(ROWS_MAX):
        pending.add_later(lambda key=key: frozenset({Table("a", None, str(key))}))
    assert len(pending.written()) == ROWS_MAX
    pending.savepoint("s")
    pending.add(frozenset({Table("a", None, "one more"), Table("b")}))
    assert pending.written() == {Table("a"), Table("b")}

"""The pure parts: does a statement only read, what becomes of a connection, and how it is told."""

import pytest

from perf_middleware.database.streams.cases import Case, Kept, is_whole, judge
from perf_middleware.database.streams.reads import TEXT_CHARS_MAX, only_reads


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "\n  (select a from b) union (select c from d)",
        "with x as (select 1) select * from x",
        "select updated_at, deleted from inserts where created > $1",
        "select 'insert into a', 'it''s', \"update\", `delete` from t",
        "select a from t -- drop\n/* create\n*/ where b = 1",
        "select replace(name, 'a', 'b') from t",
        "VALUES (1)",
        "explain select 1",
        "show search_path",
        "SAVEPOINT sa_savepoint_1",
        "ROLLBACK TO SAVEPOINT sa_savepoint_1",
        "RELEASE SAVEPOINT sa_savepoint_1",
    ],
)
def test_what_only_reads(statement):
    assert only_reads(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (1)",
        "update t set a = 1",
        "with x as (delete from t returning *) select * from x",
        "explain analyze insert into t values (1)",
        "select * into t2 from t",
        "select * from t for update",
        "select * from t FOR  KEY SHARE",
        "select * from t lock in share mode",
        "select nextval('s')",
        "select set_config('app.user', $1, true)",
        "select pg_advisory_xact_lock(1)",
        "select pg_try_advisory_xact_lock(1)",
        "select pg_notify('a', 'b')",
        r"select E'it\'s', pg_advisory_xact_lock(1), 'x'",
        "select $$it's$$, pg_advisory_xact_lock(1), 'x'",
        "set local role reader",
        "begin immediate",
        "rollback",
        "call work()",
        "pragma user_version = 5",
        "copy t from stdin",
        "declare c cursor for select 1",
        "",
        "select " + "1," * TEXT_CHARS_MAX,
    ],
)
def test_what_may_leave_something_in_its_transaction(statement):
    assert not only_reads(statement)


@pytest.mark.parametrize(
    ("facts", "case"),
    [
        pytest.param({"holds": False, "has_written": True}, Case.NOTHING, id="holds none"),
        pytest.param({}, Case.RELEASE, id="idle and clean"),
        pytest.param({"has_written": True}, Case.UNCOMMITTED, id="something would be lost"),
        pytest.param({"has_written": True, "is_in_use": True}, Case.UNCOMMITTED, id="also in use"),
        pytest.param({"is_in_use": True}, Case.NEEDED, id="a cursor runs"),
        pytest.param({"is_async": False}, Case.THREAD, id="a session of threads"),
        pytest.param({"is_async": False, "is_in_use": True}, Case.NEEDED, id="which is in use"),
    ],
)
def test_what_becomes_of_a_connection(facts, case):
    usual = {"holds": True, "has_written": False, "is_async": True, "is_in_use": False}
    assert judge(**{**usual, **facts}) is case


@pytest.mark.parametrize(
    ("status", "length", "kind", "whole"),
    [
        (200, b"5", b"application/json", True),
        (200, None, b"application/json", False),
        (200, b"5", b"text/event-stream; charset=utf-8", False),
        (304, None, None, True),
        (204, None, None, True),
    ],
)
def test_a_response_of_one_piece_is_known_by_its_head(status, length, kind, whole):
    assert is_whole(status, length, kind) is whole


def test_what_stays_is_told_with_what_to_do():
    kept = Kept(case=Case.UNCOMMITTED, route="GET /a", database="main", lines=["a.py:1 in f"])
    assert str(kept) == (
        "GET /a streams its response while a session holds a connection of main, taken at "
        "a.py:1 in f: it has work that is not committed, so the connection is held until the "
        "stream ends.  Commit before the response begins, or let the dependency end before the "
        'response, Depends(…, scope="function").'
    )
    assert "AsyncSession" in str(Kept(case=Case.THREAD, route="GET /a", database="main"))

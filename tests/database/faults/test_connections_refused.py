"""Databases that refuse to be connected to, over HTTP: a wrong role, no such database or folder.

And those that do not: where the app's own listener has something wrong, no database is away.
"""

import asyncio
import sqlite3
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.database.faults.load import Load
from tests.examples.servers import eventually, serving_app

TABLE = "create table items (id int, version int)"
ITEM = "insert into items values (1, 7)"


@contextmanager
def served(url, app="app"):
    settings = {"URL": url, "REQUIRED": "false", "SQLITE_BUSY_S": "0.1"}
    env = {f"PERFORMANCE_DATABASE_{name}": value for name, value in settings.items()}
    with serving_app(f"tests.database.faults.{app}:app", env=env) as server:
        yield Load(urlsplit(server.url).port)


def assert_refused(load):
    for what in ("/fresh/1", "POST /write/1"):
        answer = load.now(what)
        assert answer.is_clear_refusal, answer
    assert load.now("/status").body["state"] == "degraded"


def assert_well_soon(load):
    assert load.now("/fresh/1").body == 7, "sessions try by themselves at any time"
    eventually(lambda: load.now("/status").body["state"] == "open", what="the state is told")


def fill(file):
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(TABLE)
        connection.execute(ITEM)


def asked_of(url, *statements):
    async def asked():
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(asked())


@pytest.mark.parametrize("is_role", [True, False], ids=["no such role", "no such database"])
def test_what_postgresql_does_not_let_in_is_a_503(postgres, is_role):
    """Fixed bugs: it was told as away, and who asked got 500; so did who asked first when it
    was there, for what SQLAlchemy asks on an engine's first connection was taken for a statement
    of a transaction.
    """
    parts = urlsplit(postgres)
    name = "fuller" if is_role else "emptier"
    address = parts.netloc.rpartition("@")[2]
    url = parts._replace(path=f"/{name}").geturl()
    wanted = url if not is_role else parts._replace(netloc=f"{name}@{address}").geturl()
    with served(wanted) as load:
        assert_refused(load)
        if is_role:
            asked_of(postgres, f"create role {name} superuser login")
            asked_of(postgres, TABLE, ITEM)
        else:
            asked_of(postgres, f"create database {name}")
            asked_of(url, TABLE, ITEM)
        assert_well_soon(load)


def test_a_file_in_a_folder_that_is_not_there_is_a_503(tmp_path):
    folder = tmp_path / "later"
    with served(f"sqlite:///{folder}/app.db") as load:
        assert_refused(load)
        folder.mkdir()
        fill(folder / "app.db")
        assert_well_soon(load)


def test_a_file_that_somebody_has_for_himself_is_a_503_while_it_cannot_be_opened(tmp_path):
    fill(tmp_path / "app.db")
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with served(f"sqlite:///{tmp_path}/app.db") as load:
            assert_refused(load)
            other.execute("rollback")
            assert_well_soon(load)


@pytest.mark.parametrize("is_sqlite", [True, False], ids=["SQLite", "PostgreSQL"])
def test_what_an_apps_listener_has_wrong_is_a_500_of_a_database_that_is_well(
    request, tmp_path, is_sqlite
):
    """A fixed bug: a mistake in its SQL was answered by 503, and the database told as away."""
    if is_sqlite:
        url = f"sqlite:///{tmp_path}/app.db"
        fill(tmp_path / "app.db")
    else:
        parts = urlsplit(request.getfixturevalue("postgres"))
        url = parts._replace(path="/listened").geturl()
        asked_of(parts.geturl(), "create database listened")
        asked_of(url, TABLE, ITEM)
    with served(url, "listening") as load:
        for wrong in ("function", "table", "syntax", "permission"):
            load.now(f"POST /wrong/{wrong}")
            for _ in range(3):  # on a new connection, and on one that is there
                assert load.now("/fresh/1").status == 500, wrong
            time.sleep(0.5)  # one that is suspected is asked after 0.1 s
            assert load.now("/status").body["state"] == "open", wrong
            load.now("POST /right")
            assert load.now("/fresh/1").body == 7

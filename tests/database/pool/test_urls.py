"""What the URL of a database means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.database.urls import UrlError, read_url


@pytest.mark.parametrize(
    ("given", "url", "shown"),
    [
        pytest.param(
            "postgres://u:p@db.example/app",
            "postgresql+asyncpg://u:p@db.example/app",
            "postgresql://db.example:5432/app",
            id="the driver is filled in, and nobody sees who logs in",
        ),
        pytest.param(
            "postgresql+asyncpg://u:p%40%2F@[::1]:6000/app",
            "postgresql+asyncpg://u:p%40%2F@[::1]:6000/app",
            "postgresql://[::1]:6000/app",
            id="what is escaped stays so",
        ),
        pytest.param(
            "postgresql://db/app?sslmode=require",
            "postgresql+asyncpg://db/app?ssl=require",
            "postgresql://db:5432/app",
            id="libpq's name of an option is asyncpg's",
        ),
        pytest.param(
            "postgresql://u@/app?host=/run/postgresql",
            "postgresql+asyncpg://u@/app?host=%2Frun%2Fpostgresql",
            "postgresql:///run/postgresql/app",
            id="a socket in the file system",
        ),
        pytest.param(
            "sqlite:///data/app.db",
            "sqlite+aiosqlite:///data/app.db",
            "sqlite:///data/app.db",
            id="a file beside the app",
        ),
        pytest.param(
            "sqlite:///file:/var/app.db?mode=ro&uri=true",
            "sqlite+aiosqlite:///file:/var/app.db?mode=ro&uri=true",
            "sqlite:///file:/var/app.db",
            id="a file by its whole path",
        ),
    ],
)
def test_a_url_is_understood(given, url, shown):
    found = read_url(given)
    assert (found.url, found.shown, found.in_memory) == (url, shown, False)


@pytest.mark.parametrize("given", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_has_the_name_of_its_owner(given):
    found = read_url(given, memory_name="mine")
    assert found.in_memory
    assert found.url == "sqlite+aiosqlite:///file:mine?mode=memory&cache=shared&uri=true"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param("mysql://db/app", "must begin with", id="another database"),
        pytest.param("app.db", "must begin with", id="no URL"),
        pytest.param("postgresql+psycopg://db/app", "only asyncpg", id="another driver"),
        pytest.param("postgresql:///app", "names no host", id="no host"),
        pytest.param("postgresql://db:port/app", "is no URL", id="no number as its port"),
        pytest.param("postgresql://u:pa#ss@db/app", "%23", id="a # in the password"),
        pytest.param("postgresql://db/app?sslmode=yes", "one of disable", id="no such mode"),
        pytest.param("postgresql://db/app?port=bogus", "number from 1 to 65535", id="no port"),
        pytest.param("postgresql://db/app?port=5432,0", "number from 1 to 65535", id="port 0"),
        pytest.param(
            "postgresql://db/app?target_session_attrs=bogus", "one of any, primary", id="no server"
        ),
        pytest.param("postgresql://db/app?channel_binding=require", "channel_binding", id="libpq"),
        pytest.param("sqlite://app.db", "SQLite has none", id="a slash too few"),
        pytest.param("sqlite:///app.db?mode=ro", "uri=true", id="a mode that would be left out"),
        pytest.param("sqlite:///app.db?mode=ro&uri=true", "file:", id="a mode in the file's name"),
        pytest.param("sqlite:///app.db?journal=wal", "it takes cache", id="no option of SQLite"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_connects(given, problem):
    with pytest.raises(UrlError, match=problem):
        read_url(given)


@given(st.text(), st.sampled_from(["", "1?", "/", "@", ":", "&"]))
def test_no_error_repeats_what_was_given(rest, before):
    secret = "gEhEiM"
    for url in (f"postgresql://u:{before}{secret}{rest}@db/a", f"{secret}://{rest}{before}"):
        try:
            told = repr(read_url(url))
        except UrlError as error:
            told = str(error)
        assert secret not in told or f"@{secret}" in url or f"/{secret}" in url

"""The section `database`."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from perf_middleware.database.settings import DatabaseSettings
from perf_middleware.errors import DatabaseUnavailableError


def test_without_a_url_there_is_no_database():
    database = DatabaseSettings().make_database()
    assert (database.names, database.status(), list(database.families())) == ((), {}, [])
    with pytest.raises(RuntimeError, match="set `url`"):
        database.session()


def test_databases_have_names_and_the_main_one_is_first():
    section = DatabaseSettings(
        url="sqlite:///a.db", replica_url="sqlite:///b.db", databases={"old": "sqlite:///c.db"}
    )
    assert section.make_database().names == ("main", "replica", "old")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param({"url": "mysql://db/a"}, "must begin with", id="another database"),
        pytest.param({"replica_url": "sqlite:///a.db"}, "need a `url`", id="a copy of nothing"),
        pytest.param(
            {"url": "sqlite://", "databases": {"main": "sqlite://"}}, "a name of ours", id="main"
        ),
        pytest.param({"url": "sqlite://", "work_mem": "much"}, "work_mem", id="no size"),
        pytest.param(
            {"url": "sqlite://", "session_parameters": {"a b": "1"}},
            "session_parameters",
            id="name",
        ),
        pytest.param({"time_zone": "U\nTC"}, "control characters", id="a line break"),
    ],
)
def test_what_cannot_be_is_told_at_the_start(fields, problem):
    with pytest.raises(ValidationError, match=problem):
        DatabaseSettings(**fields)


def test_a_password_is_in_no_text_of_the_settings():
    section = DatabaseSettings(url="postgresql://u:geheim@db/a", databases={"b": "sqlite:///x"})
    assert "geheim" not in repr(section) + str(section) + section.model_dump_json()
    with pytest.raises(ValidationError) as refused:
        DatabaseSettings(url="postgresql://u:geheim@db:x/a")
    assert "geheim" not in str(refused.value)


def test_a_driver_that_is_not_installed_is_told_by_its_extra(opened, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    async def main():
        async with opened("postgresql://db/app"):
            pass

    with pytest.raises(DatabaseUnavailableError, match=r"asyncpg is not installed.*`postgres`"):
        run(main())


def test_sqlalchemy_is_imported_only_when_a_database_opens():
    program = (
        "import sys, perf_middleware\n"
        "from perf_middleware.database.settings import DatabaseSettings\n"
        "DatabaseSettings(url='sqlite://').make_database()\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('sqlalchemy', 'greenlet')]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()

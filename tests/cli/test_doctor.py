"""`perf-middleware doctor`: what it finds, what it prints, and what it says when it cannot."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perf_middleware import __version__
from perf_middleware.cli.commands import commands
from perf_middleware.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SECRET = "open-sesame-open"

APP = f"""
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from perf_middleware import Settings, install

print("imported")
settings = Settings(metrics={{"token": "{SECRET}"}}, runtime={{"gc": False}})
app = Starlette(middleware=[Middleware(CORSMiddleware)])
install(app, settings)
bare = Starlette()


class Shelf:
    app = app


def make():
    return app


def fail():
    raise RuntimeError("no database")


async def plain(scope, receive, send):
    pass


wrapped = install(plain, settings)
"""

BROKEN = {
    "typo.py": "app = undefined_name\n",
    "needs.py": "import a_package_nobody_has\n",
    "leaves.py": "raise SystemExit('bye')\n",
    "wrong.py": "from perf_middleware import Settings\nSettings(metrics={'enabld': 1})\n",
    "syntax.py": "def\n",
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def in_a_process(*arguments, code="from perf_middleware.cli import main; main()", **environ):
    """Run the command line; -P: the folder is on sys.path only if the command puts it there."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def run(project, monkeypatch):
    """Run the command line in this process, which is faster; imports are undone after it."""

    def invoke(*arguments, **environ):
        return CliRunner().invoke(commands(), arguments, env=environ)

    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield invoke
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(
            sys.modules[name].__file__
        ).is_relative_to(project):
            del sys.modules[name]


def rows_below(title, text):
    """The rows of one table of the report, each as its cells."""
    block = text.split(title, 1)[1].split("\n\n", 1)[0]
    return [re.split(r" {2,}", line) for line in block.splitlines()[2:]]


def test_a_process_reports_versions_stack_and_settings(project):
    done = in_a_process("doctor", "shop:app", PERFORMANCE_LIFESPAN_DRAIN_TIMEOUT_S="3")
    assert (done.returncode, done.stderr) == (0, "imported\n")
    versions = dict(rows_below("Versions", done.stdout))
    assert versions["perf_middleware"] == __version__
    assert versions["python"] == platform.python_version()
    assert {"starlette", "fastapi"} <= versions.keys()
    layers = rows_below("Layers of shop:app", done.stdout)
    assert [row[0] for row in layers] == [str(1 + i) for i in range(len(layers))]
    named = {row[1]: row[2] for row in layers}
    assert (named["metrics"], named["CORSMiddleware"], named["Starlette"]) == (
        "outer", "yours", "app",
    )  # fmt: skip
    settings = {key: (value, origin) for key, value, origin in rows_below("Settings", done.stdout)}
    assert settings["metrics.token"] == ("********", "argument")
    assert settings["runtime.gc"] == ("false", "argument")
    assert settings["lifespan.drain_timeout_s"] == ("3.0", "PERFORMANCE_LIFESPAN_DRAIN_TIMEOUT_S")
    assert settings["service"] == ("app", "default")
    assert SECRET not in done.stdout
    assert "\x1b" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]


def test_what_stdout_cannot_write_is_spelled_out(project):
    """A fixed bug: a report into a file of another encoding (Windows, `LC_ALL=en_US.ISO-8859-1`)
    ended with a traceback in its middle.
    """
    rules = '[{"path": "/caf\u00e9/*", "ttl": 5}]'
    done = in_a_process("doctor", PYTHONIOENCODING="ascii", PERFORMANCE_CACHE_RULES=rules)
    assert (done.returncode, done.stderr) == (0, "")
    assert "/caf\\xe9/*" in done.stdout
    assert "\nlifespan.enabled" in done.stdout, "all of it"


def test_json_is_all_that_stdout_holds(project):
    done = in_a_process("doctor", "shop:app", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["app"] == "shop:app"
    assert report["versions"]["perf_middleware"] == __version__
    assert [layer["position"] for layer in report["layers"]] == list(
        range(1, len(report["layers"]) + 1)
    )
    assert set(report["layers"][0]) == {"position", "name", "place", "sees", "why"}
    rows = {row["key"]: row for row in report["settings"]}
    assert rows["metrics.token"] == {
        "key": "metrics.token", "value": "********", "origin": "argument",
    }  # fmt: skip
    assert rows["metrics.buckets_s"]["value"][0] == 0.001
    assert rows["metrics.slow_request_s"]["value"] == 1.0
    assert SECRET not in done.stdout


def test_without_an_app_only_the_settings_are_shown(run):
    found = run("doctor", PERFORMANCE_SERVICE="shop")
    assert found.exit_code == 0
    assert "Layers" not in found.stdout
    assert ["service", "shop", "PERFORMANCE_SERVICE"] in rows_below("Settings", found.stdout)
    assert json.loads(run("doctor", "--json").stdout)["layers"] is None


def test_every_setting_has_a_row(run):
    keys = [row[0] for row in rows_below("Settings", run("doctor").stdout)]
    assert keys == [row.key for row in Settings().effective()]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["shop:app"], id="a Starlette app"),
        pytest.param(["shop:Shelf.app"], id="an attribute of an attribute"),
        pytest.param(["shop:make", "--factory"], id="a factory"),
        pytest.param(["shop:wrapped"], id="a Perf around another app"),
    ],
)
def test_the_perf_of_an_app_is_found(run, arguments):
    found = run("doctor", *arguments)
    assert found.exit_code == 0, found.stderr
    assert ["runtime.gc", "false", "argument"] in rows_below("Settings", found.stdout)


def test_the_app_may_be_in_another_folder(run, project, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert run("doctor", "shop:app").exit_code == 2
    assert run("doctor", "shop:app", "--app-dir", str(project)).exit_code == 0


def test_a_token_made_for_this_look_alone_is_not_logged(run, caplog):
    assert run("doctor", "shop:app").exit_code == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(
            ["shop"], "'shop' is not MODULE:APP, such as main:app", id="no attribute named"
        ),
        pytest.param(["shop.py:app"], "'shop.py:app' is not MODULE:APP", id="a file"),
        pytest.param([":app"], "':app' is not MODULE:APP", id="no module named"),
        pytest.param(["shp:app"], "there is no module 'shp' in ", id="no such module"),
        pytest.param(["shp.web:app"], "there is no module 'shp' in ", id="no such package"),
        pytest.param(["shop:ap"], "module shop has no attribute 'ap'", id="no such attribute"),
        pytest.param(
            ["shop:bare"], "perf_middleware is not installed on shop:bare", id="not installed"
        ),
        pytest.param(
            ["shop:make"],
            "perf_middleware is not installed on shop:make; "
            "if it is a function that returns the app, add --factory",
            id="a factory without --factory",
        ),
        pytest.param(
            ["shop:settings", "--factory"],
            "shop:settings is not callable: leave out --factory",
            id="no factory",
        ),
        pytest.param(
            ["shop:fail", "--factory"],
            "calling shop:fail failed: RuntimeError: no database",
            id="a factory that fails",
        ),
        pytest.param(
            ["typo:app"],
            "importing typo failed: NameError: name 'undefined_name' is not defined",
            id="an error in the module",
        ),
        pytest.param(
            ["needs:app"],
            "importing needs failed: ModuleNotFoundError: No module named 'a_package_nobody_has'",
            id="a module that the module needs",
        ),
        pytest.param(["leaves:app"], "importing leaves failed: SystemExit: bye", id="an exit"),
        pytest.param(["syntax:app"], "importing syntax failed: SyntaxError: ", id="no Python"),
        pytest.param(
            ["wrong:app"],
            "importing wrong failed: invalid settings:\n"
            "  - Settings(metrics={'enabld': …}) is not a setting; did you mean metrics.enabled",
            id="wrong settings in the module",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(run, arguments, sentence):
    found = run("doctor", *arguments)
    assert found.exit_code == 2
    assert found.stdout == ""
    said = found.stderr.removeprefix("imported\n")
    assert said.startswith(f"perf-middleware doctor: {sentence}")
    assert "Traceback" not in said


def test_wrong_settings_are_listed_and_a_secret_is_not_among_them(run):
    found = run("doctor", PERFORMANCE_METRICS_ENABLD="1", PERFORMANCE_DASHBOARD_TOKEN="sesame")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "PERFORMANCE_METRICS_ENABLD is not a setting" in found.stderr
    assert "PERFORMANCE_DASHBOARD_TOKEN must be " in found.stderr
    assert "sesame" not in found.stderr


def test_traceback_shows_where_an_error_comes_from(run):
    said = run("doctor", "typo:app", "--traceback").stderr
    assert 'typo.py", line 1' in said
    assert "importing typo failed" in said.splitlines()[-1]


def test_the_version_is_printed(run):
    found = run("--version")
    assert (found.exit_code, found.stdout) == (0, f"perf-middleware {__version__}\n")


def test_without_typer_one_sentence_says_what_to_install():
    block = "import sys; sys.modules['typer'] = None; from perf_middleware.cli import main; main()"
    done = in_a_process("doctor", code=block)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "perf-middleware: the command line needs typer: pip install 'perf-middleware[cli]'\n"
    )


def test_importing_the_package_loads_neither_settings_nor_the_command_line():
    code = (
        "import sys, perf_middleware, perf_middleware.cli\n"
        "print(*{'pydantic_settings', 'typer', 'rich'} & set(sys.modules))"
    )
    assert in_a_process(code=code).stdout.strip() == ""

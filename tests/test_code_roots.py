"""Whose code a file is: by where it lies, and by what this interpreter says of its own."""

import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perf_middleware
from perf_middleware.code_roots import CodeRoots, code_roots

ROOTS = CodeRoots(
    machinery=("/py/lib/python3.11/", "/src/perf_middleware/"),
    own=("/py/lib/python3.11/site-packages/shop/",),
)


@pytest.mark.parametrize(
    ("file", "origin"),
    [
        pytest.param("/app/views.py", "own", id="what lies nowhere known is the app's"),
        pytest.param("app.py", "own", id="also with a relative name"),
        pytest.param("/py/lib/python3.11/socket.py", "machinery", id="the standard library"),
        pytest.param("/src/perf_middleware/asgi.py", "machinery", id="ourselves"),
        pytest.param("/py/lib/python3.11/site-packages/driver/x.py", "library", id="installed"),
        pytest.param("/app/.venv/lib/site-packages/driver.py", "library", id="one-file package"),
        pytest.param("/usr/lib/python3/dist-packages/driver/x.py", "library", id="by the system"),
        pytest.param("/app/.venv/lib/site-packages/uvicorn/x.py", "machinery", id="a server"),
        pytest.param("/py/lib/python3.11/site-packages/shop/x.py", "own", id="an installed app"),
        pytest.param(r"C:\venv\Lib\site-packages\driver\x.py", "library", id="backslashes"),
        pytest.param("<frozen importlib._bootstrap>", "machinery", id="frozen"),
        pytest.param("<string>", "machinery", id="generated"),
        pytest.param("<stdin>", "own", id="typed at the prompt"),
        pytest.param("<ipython-input-3-abc>", "own", id="typed in a notebook"),
        pytest.param("<template>", "own", id="a template"),
    ],
)
def test_a_file_tells_whose_code_it_is(file, origin):
    assert ROOTS.origin_of(file) == origin


@pytest.mark.parametrize(
    ("prefix", "project", "file", "origin"),
    [
        pytest.param("/app/.venv/", "/app/", "/app/x.py", "own", id="a venv in the project"),
        pytest.param("/app/.venv/", "/app/", "/app/.venv/bin/uvicorn", "machinery", id="its bin"),
        pytest.param("/app/.venv/", "/app/", "/app/.venv/x.py", "machinery", id="its other files"),
        pytest.param("/srv/venv/", "/srv/shop/", "/srv/shop/x.py", "own", id="neighbours"),
        pytest.param("/srv/venv/", "/srv/", "/srv/venv/bin/x", "machinery", id="in its parent"),
        pytest.param("/usr/", "/usr/src/app/", "/usr/src/app/x.py", "own", id="below a prefix"),
        pytest.param("/usr/", "/usr/src/app/", "/usr/share/x.py", "machinery", id="…not all of it"),
        pytest.param("/usr/", "/", "/usr/share/x.py", "machinery", id="started in /"),
        pytest.param("/usr/", "/", "/srv/x.py", "own", id="…and lies elsewhere"),
        pytest.param("/app/", "/app/", "/app/x.py", "own", id="a venv that is the project"),
        pytest.param("/app/", "/app/", "/app/bin/uvicorn", "machinery", id="…but not its bin"),
    ],
)
def test_of_a_prefix_and_a_project_in_each_other_the_inner_one_wins(prefix, project, file, origin):
    roots = CodeRoots(machinery=(prefix, f"{prefix}bin/"), projects=(project,))
    assert roots.origin_of(file) == origin


def test_a_path_that_was_named_as_own_is_own_even_in_a_prefix():
    roots = CodeRoots(machinery=("/usr/",), own=("/usr/share/shop/",))
    assert roots.origin_of("/usr/share/shop/x.py") == "own"


@settings(deadline=None)
@given(st.text())
def test_any_file_name_has_an_origin(file):
    assert ROOTS.origin_of(file) in ("own", "library", "machinery")


def test_this_interpreter_is_machinery_and_this_file_is_own():
    roots = code_roots()
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    assert roots.origin_of(str(stdlib / "socket.py")) == "machinery"
    assert roots.origin_of(str(Path(perf_middleware.__file__))) == "machinery"
    assert roots.origin_of(pytest.__file__) == "library"
    assert roots.origin_of(__file__) == "own"


def test_the_scripts_of_the_environment_are_nobodys_project(monkeypatch):
    scripts = sysconfig.get_paths()["scripts"]
    monkeypatch.setattr(sys, "path", [scripts, *sys.path])  # as a console script starts
    assert code_roots().origin_of(f"{scripts}/uvicorn") == "machinery"
    assert code_roots().origin_of(f"{sys.prefix}/share/x.py") == "machinery"


def test_a_project_inside_a_prefix_is_own_where_the_app_is_imported_from(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    app = str(tmp_path / "src" / "app.py")
    assert code_roots().origin_of(app) == "machinery"
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "src")])
    assert code_roots().origin_of(app) == "own"


def test_an_app_in_site_packages_can_be_named_as_own():
    folder = str(Path(pytest.__file__).parent)
    assert code_roots([folder]).origin_of(pytest.__file__) == "own"


def test_without_a_working_directory_an_app_elsewhere_is_still_own(tmp_path, monkeypatch):
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()  # a deploy took its place away under a running process manager
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert code_roots().origin_of(__file__) == "own"

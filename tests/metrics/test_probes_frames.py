import sys
import sysconfig
import threading
import weakref
from pathlib import Path

import pytest

import perf_middleware
from perf_middleware.metrics.probes.frames import DEPTH_MAX, capture, code_roots, source_of
from perf_middleware.metrics.watching.stacks import StackLine


class Witness:
    """Something a frame's locals keep alive."""


def wait_for(release, entered, dead):
    witness = Witness()
    dead.append(weakref.ref(witness))
    entered.set()
    release.wait(30)


def test_a_threads_stack_is_text_and_keeps_nothing_alive():
    release, entered, dead = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=wait_for, args=(release, entered, dead))
    thread.start()
    assert entered.wait(30)
    stack = capture(thread.ident)
    release.set()
    thread.join(30)
    assert dead[0]() is None
    lines = [line for line in stack if line.function == "wait_for"]
    assert [line.file for line in lines] == [__file__]
    assert source_of(lines[0]) in ("release.wait(30)", "entered.set()")


def test_a_thread_that_does_not_exist_has_no_stack():
    assert capture(-1) == ()


def dive(depth):
    return dive(depth - 1) if depth else capture(threading.get_ident())


def test_a_deep_recursion_is_cut():
    assert len(dive(3 * DEPTH_MAX)) == DEPTH_MAX


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(StackLine("f", "/no/such/file.py", 1), id="no file"),
        pytest.param(StackLine("f", "<frozen x>", 1), id="no name of a file"),
        pytest.param(StackLine("f", __file__, 0), id="no line"),
        pytest.param(StackLine("f", __file__, 99_999), id="beyond the end"),
        pytest.param(StackLine("f", "a\0b", 1), id="not a name"),
    ],
)
def test_a_source_that_cannot_be_read_is_empty(line):
    assert source_of(line) == ""


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

"""The do-no-harm suite's twins: every kind of app, bare and with the bundle, on real servers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.http.servers", "tests.http.wire")

from perf_middleware.asgi import ASGIApp  # noqa: E402
from tests.http.apps import hidden, outermost, starlette_app  # noqa: E402
from tests.http.fastapi_apps import fastapi_app  # noqa: E402
from tests.http.servers import Journal, Server, Twins, serving, with_bundle  # noqa: E402

Build = Callable[[Journal, Path], ASGIApp]

_BUILDERS: dict[str, Build] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "callable": lambda journal, files: hidden(starlette_app(journal, files)),
}
_keys = itertools.count(1)


def _serving_twins(build: Build, files: Path, *, http: str) -> Iterator[Twins]:
    bare, installed = Journal(), Journal()
    twins = Twins(
        Server(outermost(build(bare, files), bare), journal=bare, http=http),
        Server(
            outermost(with_bundle(build(installed, files)), installed),
            journal=installed,
            http=http,
        ),
    )
    with serving(twins.bare, twins.installed):
        yield twins


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve; fixed times, so that validators are the same at every server."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "numbers.bin").write_bytes(bytes(range(256)) * 1_000)
    (folder / "plain.txt").write_text("plain text\n" * 100)
    (folder / "empty.txt").write_bytes(b"")
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("starlette", "httptools"), id="starlette"),
        pytest.param(("starlette", "h11"), id="starlette-h11"),
        pytest.param(("fastapi", "httptools"), id="fastapi"),
        pytest.param(("callable", "httptools"), id="callable"),
    ],
)
def twins(request: pytest.FixtureRequest, files: Path) -> Iterator[Twins]:
    """Every kind of app in turn."""
    kind, http = request.param
    yield from _serving_twins(_BUILDERS[kind], files, http=http)


@pytest.fixture(scope="module")
def fastapi_twins(files: Path) -> Iterator[Twins]:
    yield from _serving_twins(fastapi_app, files, http="httptools")


@pytest.fixture
def key() -> str:
    """A name for gates and journals that no other test uses."""
    return f"case-{next(_keys)}"

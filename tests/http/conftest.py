"""The do-no-harm suite's twins: every kind of app, bare and with the bundle, on real servers."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from perf_middleware import Settings
from perf_middleware.asgi import ASGIApp
from tests.http.apps import hidden, outermost, starlette_app
from tests.http.doors import DOORS, Door
from tests.http.fastapi_apps import fastapi_app
from tests.http.servers import (
    EVERY_REQUEST_MEASURED,
    Journal,
    Server,
    Twins,
    serving,
    with_bundle,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of app, and what it is served with."""

    build: Callable[[Journal, Path], ASGIApp]
    http: str = "httptools"
    settings: dict[str, Any] = field(default_factory=dict)


def _hidden_starlette(journal: Journal, files: Path) -> ASGIApp:
    return hidden(starlette_app(journal, files))


KINDS = {
    "starlette": Kind(starlette_app),
    "starlette-h11": Kind(starlette_app, http="h11"),
    "starlette-measured": Kind(starlette_app, settings=EVERY_REQUEST_MEASURED),
    "fastapi": Kind(fastapi_app),
    "callable": Kind(_hidden_starlette),
}
_keys = itertools.count(1)


def _serving(kind: Kind, files: Path) -> Iterator[Twins]:
    settings = Settings(**kind.settings)
    bare, installed = Journal(), Journal()
    app = kind.build(bare, files)
    app_with_bundle = with_bundle(kind.build(installed, files), settings)
    twins = Twins(
        Server(outermost(app, bare), journal=bare, http=kind.http),
        Server(outermost(app_with_bundle, installed), journal=installed, http=kind.http),
    )
    with serving(twins.bare, twins.installed):
        yield twins


@pytest.fixture(scope="module", autouse=True)
def _as_the_app_sent_it() -> Iterator[None]:
    """Every answer is compared to the byte: without what default settings add to it.

    test_cache_status.py looks at that field alone, test_codings.py at answers that are encoded.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv("PERFORMANCE_COMPRESSION_TYPES", "application/nothing")
    patch.setenv("PERFORMANCE_CACHE_STATUS_HEADER", "false")
    yield
    patch.undo()


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


@pytest.fixture(scope="module", params=list(KINDS))
def twins(request: pytest.FixtureRequest, files: Path) -> Iterator[Twins]:
    """Every kind of app in turn."""
    yield from _serving(KINDS[request.param], files)


@pytest.fixture(scope="module")
def fastapi_twins(files: Path) -> Iterator[Twins]:
    yield from _serving(KINDS["fastapi"], files)


@pytest.fixture
def key() -> str:
    """A name for gates and journals that no other test uses."""
    return f"case-{next(_keys)}"


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]

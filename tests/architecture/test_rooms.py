"""The rooms of the house: who may know what, read from the imports of every module.

    perf_middleware/install.py ...   top level: introduces the features to each other
    perf_middleware/metrics/         a feature: shells do I/O, every other module is pure

A breach is told as one sentence with the module and the line.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

import perf_middleware

PACKAGE = Path(perf_middleware.__file__).parent
LINES_MAX = 400

SHELLS = frozenset(
    {"__init__", "middleware", "decorators", "routes", "resource", "runtime", "probes", "stores",
     "drivers", "settings", "responses"}
)  # fmt: skip
# The front door like install, which speaks to all of them, and what reads the settings for it.
NO_FEATURES = frozenset({"cli", "configuration"})

# What the shells of several features stand on; it knows none of them.
GROUND = frozenset({"fleet"})

WAITING = frozenset(
    {"asyncio", "anyio", "sniffio", "trio", "threading", "_thread", "multiprocessing", "concurrent",
     "queue", "selectors", "sched"}
)  # fmt: skip
OUTSIDE_WORLD = frozenset(
    {"socket", "ssl", "http", "urllib", "subprocess", "signal", "time", "logging", "random",
     "secrets", "uuid", "tempfile", "shutil", "io", "glob", "gc", "resource", "contextvars",
     "importlib", "ctypes", "sqlite3", "os", "pathlib", "sys"}
)  # fmt: skip
PURE_NAMES = {
    "os": {"fspath", "PathLike"},
    "pathlib": {"PurePath", "PurePosixPath"},
    "sys": {"byteorder", "maxsize", "version_info"},
    "perf_middleware.clock": {"Clock"},
    "uuid": {"UUID"},
    "urllib.parse": {"parse_qsl", "unquote_to_bytes", "urlencode", "urljoin", "urlsplit"},
}
CODECS = frozenset({"ormsgpack", "orjson"})  # values in, bytes out, as the stdlib's json
CODEC_CALLS = {"pydantic_core": {"to_json"}}  # the same of a library that is more than a codec
OUTSIDE_CALLS = frozenset({"open", "input", "print", "breakpoint", "__import__"})
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
ASYNC = "async code"
TYPES_ONLY = ("typing.TYPE_CHECKING", "TYPE_CHECKING")

THREADS_COUNT = (
    "the app's own figures are counted from any thread: a lock keeps each addition whole"
)
ALLOWED = {
    (
        "compression/repeats.py",
        "threading",
    ): "event loops of several threads share it: a lock keeps the sum that of what is held",
    ("metrics/custom/cells.py", "threading"): THREADS_COUNT,
    ("metrics/custom/figures.py", "threading"): THREADS_COUNT,
    ("metrics/custom/instruments.py", "threading"): THREADS_COUNT,
    (
        "metrics/custom/tracking.py",
        ASYNC,
    ): "wraps the app's coroutines, waits for none",
    (
        "metrics/custom/tracking.py",
        "sys",
    ): "keeps the event loop's hooks for async generators",
}


@dataclass(frozen=True)
class Imported:
    """One name that a module gets when it runs."""

    module: str
    name: str | None
    line: int

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in TYPES_ONLY


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that is there at run time: not below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if is_for_types_only(node):
            for branch in node.orelse:
                yield branch
                yield from running(branch)
        else:
            yield from running(node)


def imports_of(tree: ast.AST, path: PurePosixPath) -> Iterator[Imported]:
    for node in running(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Imported(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = ("perf_middleware", *path.parent.parts)
                base = parents[: len(parents) - node.level + 1]
                module = ".".join((*base, module) if module else base)
            for alias in node.names:
                yield Imported(module, alias.name, node.lineno)


def feature_of(path: PurePosixPath) -> str | None:
    """The feature folder that a module of the package is in, or None at the top level."""
    folder = path.parts[0]
    return folder if len(path.parts) > 1 and folder not in NO_FEATURES else None


def is_shell(path: PurePosixPath) -> bool:
    """By its own name or that of a package it is in."""
    return bool({path.stem, *path.parts[1:-1]} & SHELLS)


# --- the rules ----------------------------------------------------------------------------------


def impure_imports(path: PurePosixPath, tree: ast.AST) -> Iterator[str]:
    """What only shells may know: waiting, the outside world, other people's clients."""
    for imported in imports_of(tree, path):
        root = imported.root
        if (str(path), root) in ALLOWED or imported.name in PURE_NAMES.get(imported.module, ()):
            continue
        if imported.module == "perf_middleware.clock":
            yield f"{path}:{imported.line} reads the clock: {imported.name}"
        elif root == "perf_middleware":
            if is_from_a_shell(imported):
                yield f"{path}:{imported.line} is pure and imports the shell {imported.module}"
        elif root in WAITING:
            yield f"{path}:{imported.line} waits: {imported.module}"
        elif root in OUTSIDE_WORLD:
            yield f"{path}:{imported.line} touches the outside world: {imported.module}"
        elif imported.name in CODEC_CALLS.get(root, ()):
            continue
        elif root not in sys.stdlib_module_names | CODECS:
            yield f"{path}:{imported.line} uses a client library: {imported.module}"


def is_from_a_shell(imported: Imported) -> bool:
    """Of settings a pure module may know the constants."""
    _, *names = imported.module.split(".")
    if imported.name is not None and not imported.name[0].isupper():
        names.append(imported.name)  # a module of the package, or a function: none has these names
    return bool(set(names[1:]) & (SHELLS - {"__init__", "settings"}))


def impure_calls(path: PurePosixPath, tree: ast.AST) -> Iterator[str]:
    for node in running(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in OUTSIDE_CALLS:
                yield f"{path}:{node.lineno} calls {name}()"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCK_CALLS:
                yield f"{path}:{node.lineno} reads the clock: {name}()"
            case ast.AsyncFunctionDef() if (str(path), ASYNC) not in ALLOWED:
                yield f"{path}:{node.lineno} waits: {ASYNC}"


def pydantic_outside_settings(path: PurePosixPath, tree: ast.AST) -> Iterator[str]:
    """In a feature only its settings know pydantic."""
    if path.stem != "settings":
        for imported in imports_of(tree, path):
            if imported.name in CODEC_CALLS.get(imported.root, ()):
                continue
            if imported.root in {"pydantic", "pydantic_settings", "pydantic_core"}:
                yield f"{path}:{imported.line} uses pydantic, which belongs into settings.py"


def imports_of_other_features(path: PurePosixPath, tree: ast.AST) -> Iterator[str]:
    own = feature_of(path)
    for node in ast.walk(tree):  # types too: a feature must be readable and deletable alone
        if isinstance(node, ast.Import | ast.ImportFrom):
            for imported in imports_of(ast.Module([node], []), path):
                parts = imported.module.split(".")
                if imported.module == "perf_middleware" and imported.name is not None:
                    parts.append(imported.name)
                if parts[0] != "perf_middleware" or len(parts) < 2 or parts[1] == own:
                    continue
                if parts[1] in GROUND:
                    continue
                if (PACKAGE / parts[1]).is_dir() or parts[1] in KNOWN_FEATURES:
                    yield f"{path}:{imported.line} imports the feature {parts[1]}"


KNOWN_FEATURES = frozenset(
    {"caching", "metrics", "compression", "limits", "memory_watch", "database", "tasks", "upstream",
     "insight", "profiling", "dashboard", "planning", "cli"}
)  # fmt: skip


def forbidden_everywhere(path: PurePosixPath, tree: ast.AST) -> Iterator[str]:
    if path.stem in {"utils", "util", "helpers", "common", "misc"} or "utils" in path.parts:
        yield f"{path} has a name that says nothing"
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id="BaseHTTPMiddleware")
                | ast.Attribute(attr="BaseHTTPMiddleware")
                | ast.alias(name="BaseHTTPMiddleware")
            ):
                yield f"{path}:{node.lineno} uses BaseHTTPMiddleware"
        for walked in walked_by(node):
            if reads_routes(walked):
                yield f"{path}:{walked.lineno} walks an app's routes"


def walked_by(node: ast.AST) -> list[ast.expr]:
    """What `node` goes through one by one: of a loop, a comprehension, `list(...)`, `a[0]`."""
    match node:
        case ast.For() | ast.AsyncFor() | ast.comprehension():
            return [node.iter]
        case ast.Starred() | ast.YieldFrom() | ast.Subscript():
            return [node.value]
        case ast.Call(func=ast.Name(id=name)) if name in WALKERS:
            return list(node.args)
        case _:
            return []


WALKERS = frozenset(
    {"all", "any", "dict", "enumerate", "filter", "frozenset", "iter", "list", "map", "max", "min",
     "next", "reversed", "set", "sorted", "sum", "tuple", "zip"}
)  # fmt: skip


def reads_routes(node: ast.AST) -> bool:
    """`app.routes` or `getattr(app, "routes")`."""
    match node:
        case ast.Attribute(attr="routes"):
            return True
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value="routes"), *_]):
            return True
        case _:
            return False


def too_long(path: PurePosixPath, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > LINES_MAX:
        yield f"{path} has {lines} lines: one module, one thought, {LINES_MAX} at most"


def breaches(path: PurePosixPath, source: str) -> list[str]:
    """Every rule that a module of the package breaks; `path` is below perf_middleware/."""
    tree = ast.parse(source)
    found = [*too_long(path, source), *forbidden_everywhere(path, tree)]
    if feature_of(path) is not None:
        found += imports_of_other_features(path, tree)
        found += pydantic_outside_settings(path, tree)
        if not is_shell(path):
            found += [*impure_imports(path, tree), *impure_calls(path, tree)]
    return found


# --- the package --------------------------------------------------------------------------------

MODULES = sorted(PACKAGE.rglob("*.py"))


def test_there_are_modules_to_read():
    read = {PurePosixPath(module.relative_to(PACKAGE)) for module in MODULES}
    features = {feature_of(path) for path in read} - {None}
    assert {"metrics", "dashboard", "insight"} <= features
    assert any(not is_shell(path) for path in read if feature_of(path))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_keeps_to_its_room(module):
    path = PurePosixPath(module.relative_to(PACKAGE).as_posix())
    assert breaches(path, module.read_text(encoding="utf-8")) == []


def test_every_exception_to_the_rules_is_still_needed():
    for (path, what), reason in ALLOWED.items():
        tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
        used = {imported.root for imported in imports_of(tree, PurePosixPath(path))}
        if any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree)):
            used.add(ASYNC)
        assert what in used, reason


# --- the reader itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("metrics/window.py", "import asyncio", "waits: asyncio"),
        ("metrics/window.py", "import anyio.to_thread", "waits: anyio.to_thread"),
        ("metrics/window.py", "from threading import Lock", "waits: threading"),
        ("metrics/window.py", "def f():\n    import socket", "outside world: socket"),
        ("metrics/window.py", "from time import monotonic", "outside world: time"),
        ("metrics/window.py", "import os", "outside world: os"),
        ("metrics/window.py", "from os import environ", "outside world: os"),
        ("metrics/window.py", "import os.path", "outside world: os.path"),
        ("metrics/window.py", "from pathlib import Path", "outside world: pathlib"),
        ("metrics/window.py", "from sys import _current_frames", "outside world: sys"),
        ("metrics/window.py", "at = datetime.now(UTC)", "reads the clock: now()"),
        ("metrics/window.py", "from uuid import uuid4", "outside world: uuid"),
        ("metrics/window.py", "import redis.asyncio", "client library: redis.asyncio"),
        ("metrics/window.py", "import numpy as np", "client library: numpy"),
        ("metrics/window.py", "from starlette.routing import Route", "client library: starlette"),
        ("metrics/window.py", "try:\n    import psutil\nexcept ImportError: pass", "psutil"),
        ("metrics/window.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import socket", "socket"),
        ("metrics/window.py", "if not TYPE_CHECKING:\n    import socket", "socket"),
        ("metrics/window.py", "from pydantic import BaseModel", "belongs into settings.py"),
        ("metrics/routes.py", "from pydantic import SecretStr", "belongs into settings.py"),
        ("metrics/routes.py", "import pydantic_core", "belongs into settings.py"),
        ("metrics/window.py", "from perf_middleware.clock import monotonic_us", "reads the clock"),
        ("metrics/window.py", "from perf_middleware.metrics.runtime import Metrics", "shell"),
        ("metrics/window.py", "from perf_middleware.metrics import runtime", "imports the shell"),
        ("metrics/window.py", "from .probes.gc import GcProbe", "imports the shell"),
        ("metrics/window.py", "async def f(): pass", "waits: async code"),
        ("metrics/window.py", "open('/proc/stat')", "calls open()"),
        ("metrics/window.py", "print(1)", "calls print()"),
        ("insight/health.py", "import logging", "outside world: logging"),
        ("limits/gcra.py", "import time", "outside world: time"),
        ("metrics/runtime.py", "from perf_middleware.dashboard.access import TokenGate", "feature"),
        ("metrics/window.py", "from perf_middleware import insight", "imports the feature insight"),
        ("metrics/window.py", "from ..insight import health", "imports the feature insight"),
        ("caching/fields.py", "from perf_middleware.fleet.runtime import Fleet", "the shell"),
        ("fleet/runtime.py", "from perf_middleware.caching import fields", "the feature caching"),
        ("metrics/probes/gc.py", "from ...insight.health import health", "the feature insight"),
        ("dashboard/routes.py", "import perf_middleware.metrics.runtime", "the feature metrics"),
        (
            "dashboard/routes.py",
            "if TYPE_CHECKING:\n    from perf_middleware.metrics.runtime import Metrics",
            "imports the feature metrics",
        ),
        ("stack.py", "from starlette.middleware.base import BaseHTTPMiddleware as B", "BaseHTTP"),
        ("stack.py", "class A(base.BaseHTTPMiddleware): pass", "uses BaseHTTPMiddleware"),
        ("utils.py", "", "a name that says nothing"),
        ("metrics/utils.py", "", "a name that says nothing"),
        ("metrics/utils/text.py", "", "a name that says nothing"),
        ("stack.py", "for route in app.routes: pass", "walks an app's routes"),
        ("stack.py", "[r for r in app.router.routes if r]", "walks an app's routes"),
        ("metrics/routes.py", "list(getattr(app, 'routes', ()))", "walks an app's routes"),
        ("stack.py", "for i, r in enumerate(self._app.routes): pass", "walks an app's routes"),
        ("stack.py", "first = app.routes[0]", "walks an app's routes"),
        ("stack.py", "every = [*app.routes]", "walks an app's routes"),
        ("stack.py", "\n" * 401, "has 401 lines"),
    ],
)
def test_a_breach_is_found(path, source, breach):
    found = breaches(PurePosixPath(path), source)
    assert len([sentence for sentence in found if breach in sentence]) == 1, found
    assert found[0].startswith(path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("metrics/window.py", "from collections import deque\nimport math, re, hashlib, hmac"),
        ("metrics/window.py", "if TYPE_CHECKING:\n    import asyncio\n    from anyio.abc import X"),
        ("metrics/window.py", "import typing\nif typing.TYPE_CHECKING:\n    import redis"),
        ("metrics/window.py", "from perf_middleware.clock import Clock"),
        ("metrics/window.py", "from perf_middleware.families import counter"),
        ("metrics/window.py", "from .families import counter"),
        ("metrics/window.py", "from perf_middleware.asgi import find_header"),
        ("metrics/window.py", "from os import PathLike\nfrom sys import byteorder"),
        ("metrics/window.py", "from uuid import UUID"),
        ("metrics/window.py", "import ormsgpack"),
        ("metrics/window.py", "from pydantic_core import to_json"),
        ("metrics/responses.py", "from starlette.responses import Response"),
        ("metrics/window.py", "from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S"),
        ("metrics/custom/tracking.py", "async def f(): await g()"),
        ("metrics/custom/cells.py", "from threading import Lock"),
        ("metrics/runtime.py", "import asyncio, time, os\nasync def f(): print(open('x'))"),
        ("metrics/probes/pulse.py", "import threading"),
        ("metrics/stores/redis.py", "import redis.asyncio"),
        ("metrics/stores/redis.py", "from perf_middleware.fleet.runtime import Fleet"),
        ("metrics/window.py", "from perf_middleware.fleet.layout import Found"),
        ("metrics/middleware/exchange.py", "from time import perf_counter_ns"),
        ("metrics/settings.py", "from pydantic import Field"),
        ("bundle.py", "from perf_middleware.metrics.runtime import Metrics\nimport time"),
        ("cli/doctor.py", "from perf_middleware.metrics.settings import MetricsSettings"),
        ("stack.py", "mounted = bool(getattr(app, 'routes', None))"),
        ("stack.py", "app.routes.append(route)"),
        ("stack.py", "\n" * 400),
    ],
)
def test_what_is_allowed_is_no_breach(path, source):
    assert breaches(PurePosixPath(path), source) == []

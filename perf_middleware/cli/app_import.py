"""Import the app that a command is about, as a server would: `module:attribute`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import sys
from typing import TYPE_CHECKING, Any

from perf_middleware.errors import ConfigurationError, SettingsError
from perf_middleware.perf import Perf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class AppNotFoundError(ConfigurationError):
    """The command line names no app that perf_middleware is installed on."""


def import_app(target: str, *, directory: Path, factory: bool) -> Any:
    """The app that `target` names; modules are looked for in `directory` first.

    Raises AppNotFoundError: one sentence; its `__cause__` is the error of the app, if it was one.
    What the app prints while it is imported goes to stderr: stdout is for the command's answer.
    """
    module_name, separator, path = target.partition(":")
    is_file = module_name.endswith(".py") or "/" in module_name or "\\" in module_name
    if is_file or not (module_name and separator and path):
        raise AppNotFoundError(f"{target!r} is not MODULE:APP, such as main:app or shop.web:app")
    sys.path.insert(0, str(directory.absolute()))
    with _quietly():
        module = _import_module(module_name, directory)
        found: Any = module
        for name in path.split("."):
            try:
                found = getattr(found, name)
            except AttributeError:
                raise AppNotFoundError(f"module {module_name} has no attribute {path!r}") from None
        return _call_factory(target, found) if factory else found


def find_perf(target: str, app: Any) -> Perf:
    """The Perf of `app`: in `app.state.perf`, or `app` itself where it wraps another ASGI app.

    Raises AppNotFoundError where nothing is installed.
    """
    for candidate in (app, getattr(getattr(app, "state", None), "perf", None)):
        if isinstance(candidate, Perf):
            return candidate
    hint = ""
    if inspect.isfunction(app) or inspect.ismethod(app):
        hint = "; if it is a function that returns the app, add --factory"
    raise AppNotFoundError(f"perf_middleware is not installed on {target}{hint}")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep stdout and our own log clear while the app's code runs.

    `install` may log a token it has just made: nobody can use that of a process that only looks.
    """

    def drop(_: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("perf_middleware")
    logger.addFilter(drop)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.removeFilter(drop)


def _import_module(name: str, directory: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself, or a package above it; anything else is an import inside the app.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise AppNotFoundError(
                f"there is no module {error.name!r} in {directory.absolute()} or in this Python"
            ) from error
        raise AppNotFoundError(f"importing {name} failed: {_in_words(error)}") from error
    except (Exception, SystemExit) as error:
        raise AppNotFoundError(f"importing {name} failed: {_in_words(error)}") from error


def _call_factory(target: str, factory: Any) -> Any:
    if not callable(factory):
        raise AppNotFoundError(f"{target} is not callable: leave out --factory")
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise AppNotFoundError(f"calling {target} failed: {_in_words(error)}") from error


def _in_words(error: BaseException) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

"""`install(app, settings)`: the front door.

bundle.py makes the parts, assembly.py puts them around the app.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from perf_middleware.errors import (
    AlreadyInstalledError,
    AppAlreadyStartedError,
    ConfigurationError,
)

if TYPE_CHECKING:
    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.perf import Perf
    from perf_middleware.settings import Settings


def install(app: Any, settings: Settings | None = None, *, memo: ValueCache | None = None) -> Perf:
    """Install the bundle into `app` and return its handle.

    FastAPI and Starlette apps are changed in place and get `app.state.perf`; for any other ASGI
    callable serve the returned Perf instead of it.  Without `settings`, `Settings()` is used, which
    reads the environment and TOML.  `memo` is the app's own value cache, made where its functions
    are decorated: it becomes `perf.memo`, and what the settings say of it holds.

    Raises ConfigurationError: not an ASGI app, installed before, or the app has started already;
    SettingsError for settings that are wrong.
    """
    # Imported here: `import perf_middleware` alone should cost next to nothing.
    from starlette.applications import Starlette

    from perf_middleware.assembly import assemble_around, assemble_inside
    from perf_middleware.bundle import Bundle
    from perf_middleware.caching.values.runtime import ValueCache
    from perf_middleware.perf import Perf
    from perf_middleware.settings import Settings

    _require_asgi(app)
    in_place = isinstance(app, Starlette)
    if isinstance(app, Perf) or (in_place and isinstance(getattr(app.state, "perf", None), Perf)):
        raise AlreadyInstalledError
    if in_place and app.middleware_stack is not None:
        raise AppAlreadyStartedError
    if in_place and hasattr(app.state, "perf"):
        raise ConfigurationError(
            f"app.state.perf is taken by {type(app.state.perf).__name__} of the app's own: "
            "install() puts its handle there, give yours another name"
        )
    if settings is None:
        settings = Settings()
    elif not isinstance(settings, Settings):
        raise ConfigurationError(f"install() needs Settings, not {type(settings).__name__}")
    if memo is not None and not isinstance(memo, ValueCache):
        raise ConfigurationError(f"memo must be a ValueCache, not {type(memo).__name__}")
    if not in_place:
        return assemble_around(Bundle(settings, memo=memo), app)
    perf = app.state.perf = assemble_inside(Bundle(settings, memo=memo), app)
    return perf


def _require_asgi(app: Any) -> None:
    if isinstance(app, type) or not callable(app):
        problem = "is not callable" if not callable(app) else "is a class, not an instance"
    else:
        try:
            inspect.signature(app).bind(None, None, None)
        except TypeError:
            problem = "cannot be called with (scope, receive, send); a WSGI app needs an adapter"
        except ValueError:  # a callable from C without a signature: its first call will tell
            return
        else:
            return
    raise ConfigurationError(f"install() needs an ASGI app: {app!r:.100} {problem}")

"""Tasks: what an app does later, or beside its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perf_middleware.tasks.background.responses import BackgroundTasks, background_tasks
    from perf_middleware.tasks.background.routes import RequestTasks
    from perf_middleware.tasks.runtime import Tasks

__all__ = ["BackgroundTasks", "RequestTasks", "Tasks", "background_tasks"]

_HOME_OF = {
    "BackgroundTasks": "perf_middleware.tasks.background.responses",
    "RequestTasks": "perf_middleware.tasks.background.routes",
    "Tasks": "perf_middleware.tasks.runtime",
    "background_tasks": "perf_middleware.tasks.background.responses",
}


def __getattr__(name: str) -> Any:
    """Imported on first use: who needs the settings alone needs nothing of these."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value

"""`tasks: RequestTasks`, a plain parameter of a FastAPI endpoint; it alone needs FastAPI."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends

from perf_middleware.tasks.background.responses import BackgroundTasks, background_tasks

RequestTasks: TypeAlias = Annotated[BackgroundTasks, Depends(background_tasks)]

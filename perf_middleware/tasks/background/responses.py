"""`BackgroundTasks`, in place of Starlette's and FastAPI's: run by the queue, after the response.

    response = JSONResponse(..., background=tasks)          tasks = BackgroundTasks(request=request)
    tasks: RequestTasks        (Annotated[BackgroundTasks, Depends(background_tasks)])       FastAPI

FastAPI makes a `BackgroundTasks` of its own wherever a parameter has that type or one below it.  So
this one is not below it: left without `Depends` it stops the app's start, and is never another one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ParamSpec

import anyio
from starlette.background import BackgroundTask
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads these annotations

from perf_middleware.cancellation import ENDING, is_being_cancelled
from perf_middleware.task_errors import JournalUnavailableError, QueueClosedError, QueueFullError
from perf_middleware.tasks.background.runtime import Origins
from perf_middleware.tasks.queue.decorators import name_of
from perf_middleware.tasks.runtime import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.tasks.queue.decorators import Task

logger = logging.getLogger("perf_middleware.tasks")

P = ParamSpec("P")


class BackgroundTasks(BackgroundTask):
    """Calls that are made when the response has been sent; one that fails stops no other.

    With `request` of an app with the bundle they are enqueued in `perf.tasks`: the response's own
    task is over, whatever they take, and the app's stop waits for them.  Where the queue takes no
    more, without `request`, and where the server runs no lifespan (the queue is not open), they run
    one after the other, as Starlette's do.
    """

    def __init__(
        self,
        tasks: Sequence[BackgroundTask] | None = None,
        *,
        request: HTTPConnection[Any] | None = None,
    ) -> None:
        self.tasks = list(tasks or ())
        self._request = request

    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `func` so when the response has been sent."""
        self.tasks.append(BackgroundTask(func, *args, **kwargs))

    async def add_durable_task(
        self, task: Task[P, Any, Any], *args: P.args, **kwargs: P.kwargs
    ) -> int:
        """Have it in the journal now, before the response: as `perf.tasks.background` does.

        Raises what that raises, JournalUnavailableError where there is no `request`.
        """
        queue = _tasks_of(self._request)
        if queue is None:
            raise JournalUnavailableError("these tasks have no request with perf.tasks")
        return await queue.accept_durable(self._request, task, args, kwargs)

    async def __call__(self) -> None:
        queue = _tasks_of(self._request)
        for task in self.tasks:
            # What has a way of its own to be called is called in that.
            is_plain = type(task) is BackgroundTask
            call = task.func if is_plain else task
            args, kwargs = (task.args, task.kwargs) if is_plain else ((), {})
            if queue is not None and not queue.is_new:  # else the server runs no lifespan
                try:
                    await queue.enqueue_background(self._request, call, args, kwargs)
                except (QueueFullError, QueueClosedError):
                    queue.note_in_place(self._request)
                except Exception as exc:  # noqa: BLE001 - the others are called all the same
                    queue.note_in_place(self._request)
                    logger.warning("background task %s runs in place: %s", name_of(call), exc)
                else:
                    continue
            try:
                await task()
            except ENDING:
                raise
            except BaseException as exc:  # a command-line function must not end the server
                if isinstance(exc, anyio.get_cancelled_exc_class()) and is_being_cancelled():
                    raise
                made_by = Origins().name_of(self._request)
                logger.exception(
                    "background task %s%s failed",
                    name_of(call),
                    f" of {made_by}" if made_by else "",
                )


async def background_tasks(
    request: HTTPConnection, native: StarletteBackgroundTasks
) -> BackgroundTasks:
    """For FastAPI's `Depends`: the background tasks of this request."""
    tasks = BackgroundTasks(request=request)
    native.add_task(tasks)
    return tasks


def _tasks_of(request: HTTPConnection[Any] | None) -> Tasks | None:
    """`perf.tasks` of the app that serves `request`."""
    if request is None:
        return None
    perf = (request.scope.get("state") or {}).get("perf")
    tasks = getattr(perf, "tasks", None)
    return tasks if isinstance(tasks, Tasks) else None

"""Whether a cancellation is the task's own: whatever else is raised must not get out of it."""

from __future__ import annotations

import asyncio
from typing import Final

ENDING: Final = (KeyboardInterrupt, GeneratorExit)
"""What ends the process, or the task, and is nobody's failure."""


def is_being_cancelled() -> bool:
    """Whether this task is: an app may let the CancelledError of something else escape.

    Always where no asyncio runs: trio's own comes from nowhere else.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return True
    return task is None or task.cancelling() > 0

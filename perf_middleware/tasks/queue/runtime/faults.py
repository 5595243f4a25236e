"""The errors of jobs, kept without what they hold."""

from __future__ import annotations

import inspect
import sys
from opcode import opmap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

CAUSES_MAX: Final = 20
CAN_WAIT: Final = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
YIELDS: Final = opmap["YIELD_VALUE"]


def clear_frames(error: BaseException) -> None:
    """Let go of the locals of the calls that `error` and its causes came through.

    They would live as long as the job is kept: the log has what there was to see.  Calls that go on
    (of an endpoint that waits for this job, or of another that raised the same error) keep theirs.
    """
    for frame in _frames(error):
        if sys.version_info < (3, 13) and _may_go_on(frame):
            continue  # there `clear` would end a coroutine that waits
        try:
            frame.clear()
        except RuntimeError:  # it runs, or it waits
            continue


def _frames(error: BaseException) -> Iterator[FrameType]:
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return
        trace = cause.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        cause = cause.__cause__ or cause.__context__


def _may_go_on(frame: FrameType) -> bool:
    """Whether `frame` is of a coroutine or generator, and stands where such wait."""
    code = frame.f_code
    return bool(code.co_flags & CAN_WAIT) and code.co_code[frame.f_lasti] == YIELDS

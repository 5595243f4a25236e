"""What becomes of a job whose attempt is over.

returned                                  succeeded, whoever asked it to stop meanwhile
raised, tries left, nobody cancelled it   scheduled again
raised                                    failed
CancelledError                            a timeout: as raised; else cancelled
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from perf_middleware.tasks.queue.retries import is_tried_again

Asked: TypeAlias = Literal["", "timeout", "cancel", "drain"]
"""Why the queue itself has cancelled an attempt; empty where it has not."""

Outcome: TypeAlias = Literal["succeeded", "retried", "failed", "cancelled"]


def outcome(
    error: BaseException | None,
    *,
    is_cancellation: bool,
    asked: Asked,
    is_threaded: bool,
    attempts: int,
    retries: int,
    retry_on: tuple[type[Exception], ...],
) -> Outcome:
    """Judge an attempt; `error` is that of the timeout where one cut it.

    A function in a thread that took too long goes on there, so it is not begun a second time.
    """
    if error is None:
        return "succeeded"
    if is_cancellation:
        return "cancelled"
    if asked in {"cancel", "drain"} or (asked == "timeout" and is_threaded):
        return "failed"
    if is_tried_again(error, retries=retries, attempts=attempts, retry_on=retry_on):
        return "retried"
    return "failed"

"""The states of a job, and which may follow which.

    scheduled --due--> queued --picked--> running --> succeeded | failed | cancelled
        ^  |             |  |                |
        |  +-> cancelled |  +-> cancelled    +-> scheduled (it will be tried again)
        |      handed_back  handed_back
        +-- enqueued with a delay

`failed` is final: what will be tried again is scheduled.  `handed_back` was accepted, and the queue
closed before it ran to an end.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Status: TypeAlias = Literal[
    "queued", "scheduled", "running", "succeeded", "failed", "cancelled", "handed_back"
]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

QUEUED: Final = "queued"
SCHEDULED: Final = "scheduled"
RUNNING: Final = "running"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
HANDED_BACK: Final = "handed_back"

WAITING: Final[frozenset[Status]] = frozenset({QUEUED, SCHEDULED})
FINISHED: Final[frozenset[Status]] = frozenset({SUCCEEDED, FAILED, CANCELLED, HANDED_BACK})

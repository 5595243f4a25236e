"""Every statement: what it costs by fingerprint, which are slow, and which one repeats."""

from perf_middleware.database.statements.decorators import allow_repeats
from perf_middleware.database.statements.runtime import (
    RequestAccount,
    RequestRecord,
    StatementWatch,
)
from perf_middleware.database.statements.settings import StatementSettings

__all__ = [
    "RequestAccount",
    "RequestRecord",
    "StatementSettings",
    "StatementWatch",
    "allow_repeats",
]

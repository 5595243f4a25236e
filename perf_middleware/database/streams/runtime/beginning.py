"""A statement that begins: an async driver waits for its cursor before anything is executed.

Another task may begin a response meanwhile: FastAPI's server-sent events run in one of their own.
Source: SQLAlchemy, `ExecutionContext.create_cursor`.
"""

from __future__ import annotations

from typing import Any, Final

CONTEXT: Final = "execution_ctx_cls"  # on a dialect


def count(dialect: Any, mark: str) -> None:
    """Count a statement as running from its cursor on, where `mark` is on its connection."""
    plain: Any = getattr(dialect, CONTEXT)

    class Beginning(plain):  # type: ignore[misc]  # each dialect has its own
        def create_cursor(self) -> Any:
            work = self.root_connection.__dict__.get(mark)
            if work is None:
                return super().create_cursor()
            work.running += 1
            try:
                return super().create_cursor()
            finally:
                work.running -= 1  # nobody waits between here and `do_execute`

    dialect.__dict__[CONTEXT] = Beginning


def count_no_more(dialect: Any) -> None:
    """As before `count`; what something else has put around it since stays."""
    if getattr(dialect.__dict__.get(CONTEXT), "__module__", "") == __name__:
        del dialect.__dict__[CONTEXT]

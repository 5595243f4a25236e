"""Whether a statement is the app's own or a loader's, from what SQLAlchemy keeps about it.

The execution options and the statement of an execution carry what `ORMExecuteState` shows as
`lazy_loaded_from`, `loader_strategy_path` and `is_column_load`.  Read here instead of in its event
`do_orm_execute`: that one costs every statement, and needs the app's session class.
"""

from __future__ import annotations

from typing import Any, Final

from perf_middleware.database.statements.n_plus_one import OWN, Load

# The rows of one INSERT, which SQLAlchemy splits by itself: on SQLite into single ones, where it
# must know which row got which key.
SPLIT: Final = Load("eager")


def load_of(context: Any) -> Load:
    """What `context`, an execution, is for; OWN where SQLAlchemy tells nothing that we know."""
    # `_name_`: what an enumeration's `name` looks up, which takes longer than all the rest here.
    if getattr(getattr(context, "execute_style", None), "_name_", None) == "INSERTMANYVALUES":
        return SPLIT
    statement = getattr(context, "invoked_statement", None)
    compiled = getattr(statement, "_compile_options", None)
    options = getattr(context, "execution_options", None)
    loading = options.get("_sa_orm_load_options") if options else None
    if compiled is None or loading is None:
        return OWN
    parent = getattr(loading, "_lazy_loaded_from", None)
    path, many = _relationships(getattr(compiled, "_current_path", None))
    if parent is not None:
        return Load("lazy", path, many)
    refreshed = getattr(loading, "_refresh_state", None)
    if refreshed is not None and getattr(compiled, "_for_refresh_state", False):
        return Load("columns", (refreshed.class_.__name__,))
    return Load("eager", path, many) if path else OWN


def _relationships(path: Any) -> tuple[tuple[str, ...], bool]:
    steps = getattr(path, "path", ())
    if not steps:  # mostly; an import costs 1 us also when it is done
        return (), False
    from sqlalchemy.orm import RelationshipProperty

    steps = [step for step in steps if isinstance(step, RelationshipProperty)]
    names = tuple(f"{step.parent.class_.__name__}.{step.key}" for step in steps)
    return names, bool(steps and steps[-1].uselist)

"""The rows of one execution: its keys are in its parameters, or known once it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perf_middleware.database.tables.rows import Keyed
    from perf_middleware.database.tables.touched import Tables, Touched
    from perf_middleware.database.tracking.pending import Pending


def rows_read(keyed: Keyed, context: Any) -> Tables | None:
    """The rows that a SELECT reads; None: its table."""
    return keyed.rows(parameters_of(keyed, context))


def note_written(pending: Pending, touched: Touched, context: Any) -> None:
    """Add what a statement writes, before it runs."""
    keyed = touched.keyed
    if keyed is None:
        pending.add(touched.writes)
    elif keyed.is_insert:
        pending.add_later(lambda: inserted(keyed, touched, context))
    else:
        written = keyed.written(parameters_of(keyed, context))
        pending.add(touched.writes if written is None else written)


def parameters_of(keyed: Keyed, context: Any) -> list[Any]:
    """The sets of parameters of an execution, with the values of an IN in one list again."""
    sets: list[Any] = context.compiled_parameters
    lists = [source.at for source in keyed.sources if source.is_list]
    if not lists:
        return sets
    # id_1 -> id_1_1, id_1_2; there is no public name for it.
    names_of = getattr(context, "_expanded_parameters", {})
    return [
        given | {at: [given.get(name) for name in names_of.get(at, ())] for at in lists}
        for given in sets
    ]


def inserted(keyed: Keyed, touched: Touched, context: Any) -> Tables:
    """What an INSERT has written, as soon as the next statement comes; its table until then."""
    wanted = len(context.compiled_parameters)
    try:
        keys = context.inserted_primary_key_rows
    except Exception:  # noqa: BLE001 - it is asked at the end of a transaction, which has to end
        return touched.writes
    is_mixed = len(keyed.sources) > 1 and wanted > 1 and context.compiled.effective_returning
    if len(keys) != wanted or is_mixed:  # rows that came back in any order, put together in this
        return touched.writes
    written = keyed.written(keys)
    return touched.writes if written is None else written

"""The statements as a table for people, and in which orders it may be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.database.statements.figures import StatementRow

Order: TypeAlias = Literal["seconds", "calls", "mean", "longest", "rows", "slow"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)
WIDTH: Final = 100  # characters of a statement in the table

_KEYS: Final[dict[Order, Callable[[StatementRow], float]]] = {
    "seconds": lambda row: row.sum_ns,
    "calls": lambda row: row.calls,
    "mean": lambda row: row.sum_ns / max(row.calls, 1),
    "longest": lambda row: row.longest_ns,
    "rows": lambda row: row.rows,
    "slow": lambda row: row.slow,
}


def sorted_rows(rows: Iterable[StatementRow], by: Order, top: int) -> list[StatementRow]:
    """The `top` rows that have most of `by`."""
    return sorted(rows, key=_KEYS[by], reverse=True)[:top]


def table(rows: Iterable[StatementRow]) -> str:
    """One line for each row below a heading; times in milliseconds but the sum, in seconds."""
    lines = ["seconds     calls   mean ms    longest      rows  slow  failed  statement"]
    for row in rows:
        calls = row.calls
        mean_ms = row.sum_ns / calls / 1e6 if calls else 0.0
        text = row.fingerprint.text
        shown = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
        lines.append(
            f"{row.sum_ns / 1e9:7.3f}  {calls:8d}  {mean_ms:8.2f}  {row.longest_ns / 1e6:9.1f}"
            f"  {row.rows:8d}  {row.slow:4d}  {row.errors + row.cancelled:6d}  "
            f"{row.fingerprint.id}  {shown}"
        )
    return "\n".join(lines)

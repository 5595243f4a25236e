"""What the doctor says about an app, as values, as JSON and as text."""

from __future__ import annotations

import importlib.metadata
import io
import platform
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from perf_middleware import __version__
from perf_middleware.configuration.words import value_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.perf import Perf
    from perf_middleware.settings import EffectiveSetting, Settings
    from perf_middleware.stack import LayerInfo

PIPE_COLUMNS = 10_000  # a pipe has no width: nothing is wrapped, so that grep sees whole lines


@dataclass(frozen=True, slots=True)
class Report:
    """The state of one app, or of the settings alone where no app was named."""

    versions: dict[str, str | None]
    app: str | None
    layers: tuple[LayerInfo, ...] | None
    settings: tuple[EffectiveSetting, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "versions": self.versions,
            "app": self.app,
            "layers": None if self.layers is None else [asdict(layer) for layer in self.layers],
            "settings": [row._asdict() for row in self.settings],
        }


def report_on(settings: Settings, *, app: str | None = None, perf: Perf | None = None) -> Report:
    """The report on `settings`, and on the stack of `perf` where an app was named."""
    layers = None if perf is None else perf.describe()
    return Report(_versions(), app, layers, tuple(settings.effective()))


def print_report(report: Report, console: Console) -> None:
    """Print `report` as tables, in colour and fitted to the width only on a terminal."""
    versions = ((name, version or "not installed") for name, version in report.versions.items())
    _print_table(console, "Versions", ("package", "version"), versions)
    if report.layers is not None:
        layers = (
            (str(row.position), row.name, row.place, row.sees, row.why) for row in report.layers
        )
        title = f"Layers of {report.app}, outermost first"
        _print_table(console, title, ("position", "name", "place", "sees", "why"), layers)
    settings = ((row.key, value_in_words(row.value), row.origin) for row in report.settings)
    _print_table(console, "Settings", ("key", "value", "from"), settings)


def console_for_stdout() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a value may have what its encoding has not
        sys.stdout.reconfigure(errors="backslashreplace")
    # No markup: a value such as [0.1,1] is text, not a style.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console


def _print_table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for row in rows:
        table.add_row(*row)
    console.print(title, style="bold")
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip())
    console.print()


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "perf_middleware": __version__,
        "python": platform.python_version(),
    }
    for name in ("starlette", "fastapi"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions

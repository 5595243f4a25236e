"""`perf-middleware doctor`: what is installed on an app, with which settings, and who set them."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Annotated

import typer

from perf_middleware.cli.app_import import find_perf, import_app
from perf_middleware.cli.report import Report, console_for_stdout, print_report, report_on
from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.settings import Settings

EXIT_WRONG = 2  # the same as for an option that does not exist


def doctor(
    app: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE:APP]", help="The app; without it, the settings only."),
    ] = None,
    app_dir: Annotated[
        Path, typer.Option(help="Where modules are looked for first.", show_default="here")
    ] = Path(),
    factory: Annotated[
        bool, typer.Option("--factory", help="APP is a callable that returns the app.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from.")
    ] = False,
) -> None:
    """Show the versions, the stack of layers and the settings in effect, secrets masked."""
    try:
        report = _examine(app, app_dir, factory=factory)
    except PerfMiddlewareError as error:
        if show_traceback:
            traceback.print_exception(error)
        typer.echo(f"perf-middleware doctor: {error}", err=True)
        raise typer.Exit(EXIT_WRONG) from None
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_report(report, console_for_stdout())


def _examine(target: str | None, directory: Path, *, factory: bool) -> Report:
    if target is None:
        return report_on(Settings())
    perf = find_perf(target, import_app(target, directory=directory, factory=factory))
    return report_on(perf.settings, app=target, perf=perf)

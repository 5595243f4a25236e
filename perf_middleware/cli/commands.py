"""The commands of `perf-middleware`, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from perf_middleware import __version__
from perf_middleware.cli.database import database
from perf_middleware.cli.doctor import doctor


def commands() -> typer.Typer:
    """The whole command line.  A new command adds one line here."""
    app = typer.Typer(
        help="Look at an app that perf_middleware is installed on.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a rich traceback shows locals, and so the secrets in them
    )
    app.callback()(_options)
    app.command()(doctor)
    app.add_typer(database, name="database")
    return app


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"perf-middleware {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that stand before a command."""

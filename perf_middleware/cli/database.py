"""`perf-middleware database triggers`: the SQL by which writes from outside are told of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from perf_middleware.database.outside.runtime import OutsideWrites
from perf_middleware.database.urls import UrlError, read_url
from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.settings import Settings

if TYPE_CHECKING:
    from perf_middleware.database.outside.triggers import Triggers

EXIT_WRONG = 2  # the same as for an option that does not exist

database = typer.Typer(help="What the app's database needs.", no_args_is_help=True)


@database.callback()
def _group() -> None:
    """What the app's database needs."""


@database.command()
def triggers(
    table: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]...", help="As in SQL; without any those of the settings."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the triggers.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it, and tell which tables are not heard.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="PERF_MIDDLEWARE_ADMIN_URL",
            show_envvar=True,
            help="Where to do it, as somebody who may; without it as the settings say.",
        ),
    ] = None,
) -> None:
    """Print the SQL of the triggers that tell of writes from outside; with --apply do it."""
    try:
        settings = Settings()
        wanted = settings.outside.triggers(settings.redis.namespace or settings.service)
        if table:
            wanted = replace(wanted, tables=tuple(table))
        if not apply:
            typer.echo(wanted.drop_sql() if drop else wanted.sql())
            return
        unheard = asyncio.run(_applied(settings, wanted, url, drop=drop))
    except (PerfMiddlewareError, ValueError) as error:  # a URL, or the name of a table
        typer.echo(f"perf-middleware database triggers: {error}", err=True)
        raise typer.Exit(EXIT_WRONG) from None
    typer.echo("done" if not unheard else f"done; not heard are {', '.join(unheard)}")


async def _applied(
    settings: Settings, wanted: Triggers, url: str | None, *, drop: bool
) -> tuple[str, ...]:
    given = url
    if given is None:
        given = settings.outside.url_of(settings.database)
    if given is None:
        raise UrlError("needs PostgreSQL: --url, outside.url or database.url")
    read = read_url(given)
    if read.dialect != "postgresql":
        raise UrlError("must begin with postgresql://: only PostgreSQL tells of writes")
    outside = OutsideWrites(read, triggers=wanted, connect_s=settings.database.connect_s)
    return await (outside.drop() if drop else outside.install())

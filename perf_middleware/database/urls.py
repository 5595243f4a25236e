"""What the URL of a database means, said before anything connects.

    postgres://…, postgresql://…, postgresql+asyncpg://…   PostgreSQL by asyncpg
    sqlite:///app.db, sqlite:////var/app.db                SQLite by aiosqlite, a file
    sqlite://, sqlite:///:memory:                          SQLite in memory, one for each Database

libpq's `sslmode` is what everybody has in their URL; asyncpg calls it `ssl`.
Sources: SQLAlchemy "Database URLs"; asyncpg.connect(); SQLite "URI Filenames" (uri.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

Dialect: TypeAlias = Literal["postgresql", "sqlite"]

DRIVERS: Final = {"postgresql": "asyncpg", "postgres": "asyncpg", "sqlite": "aiosqlite"}
PGBOUNCER_PORT: Final = 6432  # its default `listen_port` (pgbouncer.ini)
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SERVERS: Final = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
PORT_MAX: Final = 65_535

# What asyncpg.connect() takes by a URL, by the name that libpq or asyncpg has for it.
POSTGRESQL_OPTIONS: Final = {
    "ssl": "ssl",
    "sslmode": "ssl",
    "host": "host",
    "port": "port",
    "passfile": "passfile",
    "service": "service",
    "servicefile": "servicefile",
    "target_session_attrs": "target_session_attrs",
    "krbsrvname": "krbsrvname",
}
# Of libpq's others those are named in an error; a word that is not known may be of a password.
LIBPQ_ONLY: Final = frozenset(
    {"application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname",
     "fallback_application_name", "gssencmode", "keepalives", "load_balance_hosts", "options",
     "password", "replication", "require_auth", "sslcert", "sslcrl", "sslkey", "sslnegotiation",
     "sslrootcert", "tcp_user_timeout", "user"}
)  # fmt: skip
SQLITE_OPTIONS: Final = frozenset({"uri", "mode", "cache", "vfs", "immutable", "nolock"})


class UrlError(ValueError):
    """What is wrong with a URL; its text repeats nothing of it, for it may hold a password."""

    holds_no_value = True  # the errors of settings may tell it though the setting is a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """A URL understood: `url` is SQLAlchemy's, secrets in it; `shown` is for logs and errors.

    `in_memory`: the data lives as long as one connection to it.
    """

    dialect: Dialect
    url: str
    shown: str
    in_memory: bool = False
    looks_like_pgbouncer: bool = False

    def __repr__(self) -> str:
        return f"DatabaseUrl({self.shown})"


def read_url(url: str, *, memory_name: str = "perf_memory") -> DatabaseUrl:
    """What `url` means.  `memory_name` tells databases in memory of one process apart.

    Raises UrlError.
    """
    scheme, separator, rest = url.partition("://")
    kind, _, driver = scheme.lower().partition("+")
    if not separator or kind not in DRIVERS:
        raise UrlError(
            "must begin with postgresql:// or sqlite:///; for another database make the engine "
            "yourself and give it to database.watch(engine)"
        )
    if driver and driver != DRIVERS[kind]:
        raise UrlError(f"only {DRIVERS[kind]} is used for {kind}://: leave the driver out")
    return _sqlite(rest, memory_name) if kind == "sqlite" else _postgresql(rest)


def _postgresql(rest: str) -> DatabaseUrl:
    if "#" in rest:
        raise UrlError("has a # in it: write it as %23")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        port = parts.port
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise UrlError(
            "is no URL: postgresql://user:password@host:5432/database, and in a password / is "
            "written as %2F, ? as %3F and @ as %40"
        ) from None
    hosts = [value for key, value in options if key == "host"]
    if not parts.hostname and not hosts:
        raise UrlError("names no host: postgresql://user:password@host:5432/database")
    given: list[tuple[str, str]] = []
    for key, value in options:
        known = POSTGRESQL_OPTIONS.get(key)
        if known is None:
            named = f" ({key})" if key in LIBPQ_ONLY else ""
            raise UrlError(
                f"has an option that asyncpg does not take{named}; time limits and the settings "
                "of sessions are settings of their own here"
            )
        if known == "ssl" and value not in SSL_MODES:
            raise UrlError(f"{key} must be one of {', '.join(SSL_MODES)}")
        if known == "target_session_attrs" and value not in SERVERS:
            raise UrlError(f"{key} must be one of {', '.join(SERVERS)}")
        if known == "port" and not all(map(_is_port, value.split(","))):
            raise UrlError(f"port must be a number from 1 to {PORT_MAX}, one for each host")
        given.append((known, value))
    query = f"?{urlencode(given)}" if given else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    where = f"{host}:{port or 5432}" if host else ",".join(hosts)
    return DatabaseUrl(
        dialect="postgresql",
        url=f"postgresql+asyncpg://{parts.netloc}{parts.path}{query}",
        shown=f"postgresql://{where}{parts.path}",
        looks_like_pgbouncer=port == PGBOUNCER_PORT,
    )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= PORT_MAX


def _sqlite(rest: str, memory_name: str) -> DatabaseUrl:
    path, _, query = rest.partition("?")
    if path and not path.startswith("/"):
        raise UrlError(
            "has a host, and SQLite has none: sqlite:///file.db, or sqlite:////absolute/file.db"
        )
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise UrlError("has options that cannot be read: sqlite:///file.db") from None
    if not options.keys() <= SQLITE_OPTIONS:
        taken = ", ".join(sorted(SQLITE_OPTIONS))
        raise UrlError(f"has an option that SQLite does not take; it takes {taken}")
    name = path[1:]
    if name in {"", ":memory:", "file::memory:"} or options.get("mode") == "memory":
        # A plain :memory: is another database for each connection.  Shared by a name it is one,
        # and it lives as long as any connection to it (SQLite "In-Memory Databases").
        return DatabaseUrl(
            dialect="sqlite",
            url=f"sqlite+aiosqlite:///file:{memory_name}?mode=memory&cache=shared&uri=true",
            shown="sqlite://:memory:",
            in_memory=True,
        )
    if options and (options.get("uri") != "true" or not name.startswith("file:")):
        # SQLite would leave them out, `mode=ro` too, or take them for a part of the file's name.
        raise UrlError(
            "has options, which need file: and uri=true: sqlite:///file:app.db?…&uri=true"
        )
    return DatabaseUrl(
        dialect="sqlite",
        url=f"sqlite+aiosqlite:///{name}" + (f"?{query}" if query else ""),
        shown=f"sqlite:///{name}",
    )

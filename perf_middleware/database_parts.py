"""The databases of one app, made from the settings and introduced to the rest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from perf_middleware.database.routes import database_routes
from perf_middleware.limits.deadlines.runtime import current_deadline
from perf_middleware.metrics.middleware import Exchange, current_connection, current_exchange
from perf_middleware.stack import STREAM_GUARD, Layer

if TYPE_CHECKING:
    from perf_middleware.database.statements import StatementWatch
    from perf_middleware.events import Events
    from perf_middleware.metrics.runtime import Metrics
    from perf_middleware.operator_routes import OperatorRoute
    from perf_middleware.resource import Resources
    from perf_middleware.settings import Settings

METHOD_CHARS_MAX: Final = 16


class DatabaseParts:
    """Makes `perf.database`, which is there without a URL too: it watches engines of the app's."""

    def __init__(self, settings: Settings, *, metrics: Metrics, events: Events) -> None:
        self._metrics = metrics
        self._known_routes = metrics.recorder.templates.known
        self.is_configured = bool(settings.database.urls())
        self.statements: StatementWatch | None = None
        if settings.statements.enabled:
            self.statements = settings.statements.make_watch(
                current_request=current_exchange,
                route_of=self._told_route_of,
                events=events,
                own=settings.runtime.own_paths,
            )
            metrics.recorder.database_used = self.statements.request_ended
        self._asks_for_guard = settings.origin_of("database.stream_guard") != "default"
        self.database = settings.database.make_database(
            settings.service,
            route_of=self._route_running,
            left_by=_left_by,
            remaining_us=_remaining_us,
            statements=self.statements,
            make_retry=partial(settings.retry.make_retry, remaining_s=_remaining_s, events=events),
        )
        if self.database.stream_guard is not None:
            self.database.stream_guard.publish = events.publish

    def join(self, metrics: Metrics, resources: Resources) -> None:
        """Offer the figures, and let the lifespan open what is configured.

        Also where nothing is: what the app watches while it runs ends with its lifespan.
        """
        database = self.database
        metrics.add_collector("database", database.families, reset=database.reset_counts)
        resources.add(database)
        database.on_change = lambda is_up, why: resources.note(
            database, "open" if is_up else "degraded", why
        )

    def routes(self) -> tuple[OperatorRoute, ...]:
        """What operators may ask for, below their prefix."""
        return database_routes(self.database)

    def _told_route_of(self, exchange: Exchange) -> str:
        route = self._route_of(exchange)
        method = ascii(exchange.scope.get("method", "")[:METHOD_CHARS_MAX])[1:-1]
        return f"{method} {route}" if route else ""

    def layers(self) -> list[Layer]:
        """The stream guard, where there is a database, or a setting asks for it."""
        database, guard = self.database, self.database.stream_guard
        if guard is None:
            return []

        def stands() -> bool:
            guard.has_no_layer = not (database.is_used or self._asks_for_guard)
            return not guard.has_no_layer

        from perf_middleware.database.streams.middleware import StreamGuardMiddleware

        build = partial(StreamGuardMiddleware, database=database)
        return [Layer(STREAM_GUARD, build, stands)]

    def _route_running(self) -> str | None:
        current = current_connection()
        if type(current) is Exchange:
            # As `_route_of`, for what is usual: each loan of a connection asks.
            if current.route is None:
                scope = current.scope
                known = self._known_routes.get(id(scope.get("route")))
                if (
                    known is not None
                    and "fastapi" not in scope
                    and scope.get("root_path") == current.root_path
                ):
                    return known[1]
            return self._route_of(current)
        if current is None or not current.scope:
            return None
        return self._metrics.recorder.route_of(current.scope, current.root_path)

    def _route_of(self, exchange: Exchange) -> str | None:
        """None for what a task still does whose request is over."""
        if exchange.route is not None:
            return exchange.route
        if not exchange.scope:
            return None
        return self._metrics.recorder.route_of(exchange.scope, exchange.root_path)


def _left_by() -> str | None:
    """The route whose request or websocket is over, and has left the task that runs."""
    current = current_connection()
    if current is None or current.scope:
        return None
    if isinstance(current, Exchange):
        return None if current.recorded is None else dict(current.recorded.labels.pairs)["route"]
    return current.route


def _remaining_us() -> int | None:
    deadline = current_deadline()
    return None if deadline is None else deadline.remaining_us()


def _remaining_s() -> float | None:
    remaining_us = _remaining_us()
    return None if remaining_us is None else remaining_us / 1_000_000

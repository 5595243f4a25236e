"""`install(app, settings)`: builds the parts from the settings and introduces them to each other.

This is the only place where features meet.  Settings end here: what is built gets values, and a
wrong setting fails here, never at the first request.
"""

from __future__ import annotations

import inspect
import logging
import secrets
from typing import TYPE_CHECKING, Any

from perf_middleware.dashboard.access import TokenGate
from perf_middleware.dashboard.routes import Endpoint, OperatorEndpoints, json_answer
from perf_middleware.errors import (
    AlreadyInstalledError,
    AppAlreadyStartedError,
    ConfigurationError,
)
from perf_middleware.events import Events
from perf_middleware.insight.health import HealthInput
from perf_middleware.metrics.middleware import MetricsMiddleware, RequestRecorder
from perf_middleware.metrics.overhead import Overhead
from perf_middleware.metrics.runtime import Metrics, RateSampler
from perf_middleware.perf import RECENT_S, Perf
from perf_middleware.resource import LifespanPlugin, Resources
from perf_middleware.stack import (
    METRICS,
    OPERATORS,
    REQUEST_SCOPE,
    Entrance,
    Inner,
    Layer,
    LayerInfo,
    RequestScope,
    in_order,
)

if TYPE_CHECKING:
    from perf_middleware.asgi import ASGIApp
    from perf_middleware.settings import Settings

logger = logging.getLogger("perf_middleware")


def install(app: Any, settings: Settings | None = None) -> Perf:
    """Install the bundle into `app` and return its handle.

    FastAPI and Starlette apps are changed in place and get `app.state.perf`; for any other ASGI
    callable serve the returned Perf instead of it.  Without `settings`, `Settings()` is used, which
    reads the environment and TOML.

    Raises ConfigurationError: not an ASGI app, installed before, or the app has started already;
    SettingsError for settings that are wrong.
    """
    from starlette.applications import Starlette

    _require_asgi(app)
    if isinstance(app, Perf):
        raise AlreadyInstalledError
    if not isinstance(app, Starlette):
        return _Bundle(settings).around(app)
    if isinstance(getattr(app.state, "perf", None), Perf):
        raise AlreadyInstalledError
    if app.middleware_stack is not None:
        raise AppAlreadyStartedError
    perf = _Bundle(settings).inside(app)
    app.state.perf = perf
    return perf


def _require_asgi(app: Any) -> None:
    if isinstance(app, type) or not callable(app):
        problem = "is not callable" if not callable(app) else "is a class, not an instance"
    else:
        try:
            inspect.signature(app).bind(None, None, None)
        except TypeError:
            problem = "cannot be called with (scope, receive, send); a WSGI app needs an adapter"
        except ValueError:  # a callable from C without a signature: its first call will tell
            return
        else:
            return
    raise ConfigurationError(f"install() needs an ASGI app: {app!r:.100} {problem}")


class _Bundle:
    """What one `install` builds, on its way to becoming a Perf."""

    def __init__(self, settings: Settings | None) -> None:
        if settings is None:
            from perf_middleware.settings import Settings

            settings = Settings()
        self.settings = settings
        self.events = Events()
        self.resources = Resources(
            start_timeout_s=settings.lifespan.start_timeout_s,
            drain_timeout_s=settings.lifespan.drain_timeout_s,
            events=self.events,
        )
        self.metrics = Metrics(recorder=_recorder(settings))
        self.metrics.add_collector("events", self.events.families)
        self.resources.add(RateSampler(self.metrics))
        self.layers = [Layer(REQUEST_SCOPE, RequestScope)]
        self.overhead: Overhead | None = None
        self.perf: Perf | None = None

    def around(self, app: ASGIApp) -> Perf:
        """All layers outside an app whose inside we do not know."""
        self._build_layers()
        layers = [*in_order(self.layers, "outer"), *in_order(self.layers, "inner")]

        async def entrance(scope: Any, receive: Any, send: Any) -> None:
            await stack(scope, receive, send)

        perf = self._perf(entrance, lambda: _described(layers, [], app))
        stack = self._entrance(app, layers, perf)
        return perf

    def inside(self, app: Any) -> Perf:
        """Outer layers outside the user's middlewares, inner ones between them and the router.

        Starlette builds its middleware stack lazily, once; at that moment every middleware of the
        user is known, whether it was added before or after `install`.
        """
        from starlette.middleware import Middleware

        self._build_layers()
        outer = in_order(self.layers, "outer")
        inner = in_order(self.layers, "inner")
        perf = self._perf(app, lambda: _described(outer, inner, app))
        build_own_stack = app.build_middleware_stack

        def inner_layers(core: ASGIApp) -> Inner:
            return Inner(core, layers=inner, first=len(outer))

        def build_middleware_stack() -> ASGIApp:
            users = app.user_middleware
            app.user_middleware = [*users, Middleware(inner_layers)]
            try:
                core = build_own_stack()
            finally:
                app.user_middleware = users
            return self._entrance(core, outer, perf)

        app.build_middleware_stack = build_middleware_stack
        return perf

    def _perf(self, app: Any, describe: Any) -> Perf:
        self.perf = Perf(
            app=app,
            settings=self.settings,
            metrics=self.metrics,
            events=self.events,
            resources=self.resources,
            overhead=self.overhead,
            layers=describe,
            health_inputs=self._health_inputs,
        )
        return self.perf

    def _entrance(self, app: ASGIApp, layers: list[Layer], perf: Perf) -> Entrance:
        lifespan = self.settings.lifespan.enabled
        return Entrance(
            app,
            layers=layers,
            lifespan=LifespanPlugin(app, resources=self.resources) if lifespan else None,
            perf=perf,
            overhead=self.overhead,
            sample_every=self.settings.metrics.overhead_sample_every,
        )

    def _build_layers(self) -> None:
        settings = self.settings
        if settings.metrics.enabled:
            recorder = self.metrics.recorder
            self.layers.append(
                Layer(METRICS, lambda app: MetricsMiddleware(app, recorder=recorder))
            )
        endpoints = self._endpoints()
        if endpoints:
            self.layers.append(
                Layer(OPERATORS, lambda app: OperatorEndpoints(app, endpoints=endpoints))
            )
        if settings.metrics.overhead:
            ordered = [*in_order(self.layers, "outer"), *in_order(self.layers, "inner")]
            self.overhead = Overhead([layer.rank.name for layer in ordered])
            self.metrics.add_collector("overhead", self.overhead.families)

    def _endpoints(self) -> dict[str, Endpoint]:
        settings = self.settings
        endpoints: dict[str, Endpoint] = {}
        if settings.dashboard.enabled:
            gate = TokenGate(self._operator_token())
            prefix = settings.dashboard.prefix
            endpoints[f"{prefix}/status"] = Endpoint(json_answer(self._status), gate=gate)
            endpoints[f"{prefix}/summary"] = Endpoint(json_answer(self.metrics.summary), gate=gate)
        return endpoints

    def _status(self) -> dict[str, Any]:
        return self.perf.status() if self.perf is not None else {}

    def _operator_token(self) -> str:
        settings = self.settings.dashboard
        if settings.token is not None:
            return settings.token.get_secret_value()
        token = secrets.token_urlsafe(24)
        # A warning, because it must be seen: most apps show nothing below that level.
        logger.warning(
            "operator endpoints below %s take this token until the next start "
            "(PERFORMANCE_DASHBOARD_TOKEN sets a lasting one): Authorization: Bearer %s",
            settings.prefix,
            token,
        )
        return token

    def _health_inputs(self) -> list[HealthInput]:
        inputs = []
        failed_share = self.metrics.recent(RECENT_S).failed_share
        if failed_share is not None:
            inputs.append(
                HealthInput(
                    name="failed requests", value=failed_share, fine=0.0, bad=0.05, weight=3,
                    reason="share of requests answered with status 500 and above, last 5 minutes",
                )
            )  # fmt: skip
        states = [state for state, _ in self.resources.states().values()]
        if self.resources.running and states:
            inputs.append(
                HealthInput(
                    name="resources", value=sum(s != "open" for s in states) / len(states),
                    fine=0.0, bad=0.5, weight=2, reason="share of resources that are not open",
                )
            )  # fmt: skip
        return inputs


def _recorder(settings: Settings) -> RequestRecorder:
    metrics = settings.metrics
    return RequestRecorder(
        buckets_s=metrics.buckets_s,
        series_max=metrics.series_max,
        server_timing=metrics.server_timing,
        trace_context=metrics.trace_context,
        trace_response=metrics.trace_response,
        exemplars=metrics.exemplars,
        slow_request_s=metrics.slow_request_s,
        slow_log_per_minute_max=metrics.slow_log_per_minute_max,
    )


def _described(outer: list[Layer], inner: list[Layer], app: Any) -> tuple[LayerInfo, ...]:
    rows: list[tuple[str, Any, str, str]] = [
        (layer.rank.name, layer.rank.place, layer.rank.sees, layer.rank.why) for layer in outer
    ]
    rows += [
        (
            getattr(middleware.cls, "__name__", type(middleware.cls).__name__),
            "yours",
            "what the layers above let through",
            "the app's own middleware, in the app's own order",
        )
        for middleware in getattr(app, "user_middleware", ())
    ]
    rows += [
        (layer.rank.name, layer.rank.place, layer.rank.sees, layer.rank.why) for layer in inner
    ]
    where = "all layers wrap it from outside: its inside is not known" if not inner else ""
    rows.append((type(app).__name__, "app", "what is left", where or "your routes"))
    return tuple(LayerInfo(position, *row) for position, row in enumerate(rows, start=1))

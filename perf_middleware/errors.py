"""The errors that this package raises, one tree below `PerfMiddlewareError`.

A call that is wrong in itself (a second `perf.running()`, a resource's name given twice) raises
Python's own TypeError, ValueError or RuntimeError, as its docstring says.
"""

from __future__ import annotations


class PerfMiddlewareError(Exception):
    """Base of every error of this package."""


class ConfigurationError(PerfMiddlewareError):
    """A setting, or the way `install` was called, is wrong.

    Raised while an app is put together (`Settings()`, `install()`, a middleware's constructor),
    never while it serves a request.
    """


class SettingsError(ConfigurationError):
    """One or more settings are unknown or invalid; `problems` has one sentence for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)  # args repeat the constructor: the error survives pickling
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(("invalid settings:", *(f"  - {problem}" for problem in self.problems)))


class MetricUseError(PerfMiddlewareError, TypeError, ValueError):
    """A figure was called with the wrong label names, or a counter with less than zero.

    Raised at the call, in the app's own code: a mistake in the program, like a wrong argument.
    """

    def __init__(self, metric: str, problem: str) -> None:
        super().__init__(metric, problem)
        self.metric = metric
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.metric}: {self.problem}"


class UnkeyableArgumentError(PerfMiddlewareError, TypeError):
    """An argument of a cached function cannot be told apart by text, so the call has no key.

    Raised at the call, before the function runs: a mistake in the program.  Never for types that
    docs/values.md lists.
    """

    def __init__(self, function: str, argument: str, kind: str, why: str) -> None:
        super().__init__(function, argument, kind, why)
        self.function = function
        self.argument = argument
        self.kind = kind
        self.why = why

    def __str__(self) -> str:
        name = self.argument.partition(".")[0].partition("[")[0].partition(" ")[0]
        return (
            f"{self.function}: argument {self.argument} ({self.kind}) {self.why}: "
            f"leave it out with exclude=({name!r},), say what names it with key=..., "
            f"or give its class a __cache_key__"
        )


class UnpackableValueError(PerfMiddlewareError, TypeError):
    """A value cannot be written to bytes, or could not be read back as what it was.

    Raised when it is put into a store outside of this process; a cached function returns it all the
    same, uncached, and one log line says so.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(kind, why)
        self.kind = kind
        self.why = why

    def __str__(self) -> str:
        return f"{self.kind} cannot be stored: {self.why}"


class AlreadyInstalledError(ConfigurationError):
    """`install` was called a second time on the same app."""

    def __str__(self) -> str:
        return (
            "perf_middleware is already installed on this app: "
            "use the Perf that the first install() returned (app.state.perf)"
        )


class AppAlreadyStartedError(ConfigurationError):
    """`install` was called after the app built its middleware stack, so no layer could be added."""

    def __str__(self) -> str:
        return (
            "this app has already started serving: call install(app, settings) "
            "right after the app is created, not in its lifespan or in a request"
        )


class ResourceStartError(PerfMiddlewareError):
    """A required resource did not open; everything opened before it was closed again.

    The start-up of the app fails with this sentence.  A resource that is not required degrades
    instead and never raises this.
    """

    def __init__(self, resource: str, reason: str) -> None:
        super().__init__(resource, reason)
        self.resource = resource
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.resource} could not start: {self.reason}"


class StoreUnavailableError(PerfMiddlewareError):
    """A shared store (Redis) gave no answer in time, or is known to be away.

    No client sees it: the response cache goes on with what is in memory, and asks the app for the
    rest.  Raised by what the app's code calls itself where only the shared store could answer.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} is not available: {self.reason}"


class StoreRefusedError(PerfMiddlewareError):
    """A shared store answered with an error: it has no room left, or takes no writes.

    No client sees it: what was to be stored there is not.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} refused: {self.reason}"


class RequestRejectedError(PerfMiddlewareError):
    """A request is refused: `status` is its answer, `retry_after_s` when to come again, if known.

    Raised in the app's own code, by what it calls there.  Where the app lets it pass, a layer of
    ours answers with `status`; it becomes no 500.
    """

    def __init__(self, status: int, retry_after_s: int | None = None) -> None:
        super().__init__(status, retry_after_s)
        self.status = status
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the request is refused with {self.status}"


class DeadlineExceededError(RequestRejectedError):
    """A request has no time left, or less than a step of it needs; `remaining_s` is what it has.

    Raised by `deadline.require()` and `deadline.scope()` in the app's own code, and to the server
    where a response that has begun is cut at its deadline.  Uncaught it is answered with 504.
    """

    def __init__(self, remaining_s: float = 0.0, needed_s: float | None = None) -> None:
        super().__init__(504)
        self.args = (remaining_s, needed_s)  # repeat the constructor: the error survives pickling
        self.remaining_s = remaining_s
        self.needed_s = needed_s

    def __str__(self) -> str:
        if self.needed_s is None:
            return "the request has reached its deadline"
        return f"{self.needed_s:g} s are needed, and {self.remaining_s:g} s are left of the request"

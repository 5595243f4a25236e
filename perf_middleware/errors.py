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


class UncacheableQueryError(PerfMiddlewareError, TypeError):
    """What was given to the query cache cannot be kept: it writes, locks, or belongs to a session.

    Raised at the call, before a statement runs (after it, for what a function returned): a mistake
    in the program.  Never for a query that is only not kept, which runs as it would without us.
    """

    def __init__(self, problem: str, instead: str) -> None:
        super().__init__(problem, instead)
        self.problem = problem
        self.instead = instead

    def __str__(self) -> str:
        return f"it cannot be cached: {self.problem}; {self.instead}"


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

    Raised in the app's own code, by what it calls there.  Where the app lets it pass it is answered
    with `status` and problem+json; it becomes no 500.
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


class DatabaseBusyError(RequestRejectedError):
    """A pool has no connection for a request: not in time, or not before its deadline.

    Raised in the app's own code by the first statement of a session, which holds nothing then.
    `waited_s` is how long it waited, 0 where it was told at once.  Uncaught it is
    answered with 503.
    """

    def __init__(
        self, database: str, waited_s: float = 0.0, retry_after_s: int | None = None
    ) -> None:
        super().__init__(503, retry_after_s)
        self.args = (database, waited_s, retry_after_s)  # as the constructor's, for pickling
        self.database = database
        self.waited_s = waited_s

    def __str__(self) -> str:
        if self.waited_s:
            return f"{self.database} had no connection free within {self.waited_s:.2f} s"
        return f"{self.database} has no connection free before the request's deadline"


class DatabaseUnavailableError(RequestRejectedError):
    """A database does not answer, or refuses to be connected to; `reason` holds no secret of ours.

    Raised by `database.ping()`, at the start, where a `required` one stops it, and where a
    session's block ends with a connection that was refused or lost, or with a statement that was
    not answered in time: from the driver's error.  Uncaught it is answered with 503.  Any other
    error of a statement stays SQLAlchemy's own.
    """

    def __init__(self, database: str, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(503, retry_after_s)
        self.args = (database, reason, retry_after_s)  # as the constructor's, for pickling
        self.database = database
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.database} does not answer: {self.reason}"


class CommitOutcomeUnknownError(RequestRejectedError):
    """The connection was lost during COMMIT: the transaction may have been committed, or not.

    Raised by sessions, from the driver's error, and by `perf.database.run` for a unit of work that
    is not called idempotent; it is not tried again, as that might do the work twice.  Never where
    the server has said that it rolled back.  Uncaught it is answered with 503.
    """

    def __init__(self, retry_after_s: int | None = None) -> None:
        super().__init__(503, retry_after_s)
        self.args = (retry_after_s,)  # repeat the constructor: the error survives pickling

    def __str__(self) -> str:
        return (
            "the connection was lost while committing: the transaction may have been committed; "
            "look before you repeat it, or call run(..., idempotent=True) if that does no harm"
        )


class UnannouncedWriteError(RequestRejectedError):
    """A transaction was to write what other processes keep answers of, and could not tell them.

    Raised in place of its COMMIT, where `tracking.refuse_unannounced` is set: nothing of it is
    done.  `reason` says why it could not be told.  Uncaught it is answered with 503.
    """

    def __init__(self, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(503, retry_after_s)
        self.args = (reason, retry_after_s)  # as the constructor's, for pickling
        self.reason = reason

    def __str__(self) -> str:
        return f"not committed, for other processes cannot be told what it changes: {self.reason}"


class OutsideWritesError(PerfMiddlewareError):
    """Writes from outside are not heard, or their triggers could not be changed; `reason` says why.

    Raised by `database.install_triggers()` and the command line.  At the start it degrades a
    resource, and the app goes on without.
    """

    def __init__(self, database: str, reason: str) -> None:
        super().__init__(database, reason)
        self.database = database
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.database}: {self.reason}"


class TracingBusyError(PerfMiddlewareError):
    """A trace of allocations, or another look at all objects, runs in this process already.

    Raised at once, to whoever asked for a second one; the running one is not touched.
    """

    def __str__(self) -> str:
        return "memory is being looked at already: one trace or inspection at a time"


class PoolClosedError(PerfMiddlewareError):
    """A pool is not open: `async with pool` (or `with pool`) has not begun, or is over.

    Raised to those who ask for an object, also to those who wait when it closes.  Never when one is
    given back.
    """

    def __init__(self, pool: str) -> None:
        super().__init__(pool)
        self.pool = pool

    def __str__(self) -> str:
        return f"{self.pool} is not open"


class PoolTimeoutError(PerfMiddlewareError):
    """A pool had no object in time; `doing` says what took so long: wait, create.

    Raised to the one who asked, who holds nothing then.
    """

    def __init__(self, pool: str, doing: str, seconds: float) -> None:
        super().__init__(pool, doing, seconds)
        self.pool = pool
        self.doing = doing
        self.seconds = seconds

    def __str__(self) -> str:
        what = "all of its objects are in use" if self.doing == "wait" else f"{self.doing} took"
        return f"{self.pool} had no object within {self.seconds:g} s: {what}"


class PoolLineFullError(PoolTimeoutError):
    """As many as may wait for an object of a pool are waiting already (`waiting_max`)."""

    def __init__(self, pool: str, waiting_max: int) -> None:
        super().__init__(pool, "wait", 0.0)
        self.args = (pool, waiting_max)  # repeat the constructor: the error survives pickling
        self.waiting_max = waiting_max

    def __str__(self) -> str:
        return f"{self.pool} has no object left, and {self.waiting_max} wait already"

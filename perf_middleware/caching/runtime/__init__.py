"""`ResponseCache`: what one app has stored, and everything that may be done with it.

The middleware looks up and stores; the app's own code purges and asks for explanations.
"""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from math import log
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio.lowlevel

from perf_middleware.caching.cache_status import CacheStatus
from perf_middleware.caching.cookies import IgnoredCookies
from perf_middleware.caching.decorators import listed
from perf_middleware.caching.evidence import Evidence
from perf_middleware.caching.figures import CacheFigures
from perf_middleware.caching.forms import CodedForms
from perf_middleware.caching.invalidation import root_of
from perf_middleware.caching.judgement import Judge
from perf_middleware.caching.known_heads import KnownHeads
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.purges import PurgeLog
from perf_middleware.caching.refused import Refused
from perf_middleware.caching.rules import CachePolicy, RuleBook
from perf_middleware.caching.runtime.confirming import confirmed
from perf_middleware.caching.runtime.explain import explain, scope_of
from perf_middleware.caching.runtime.flights import Flights
from perf_middleware.caching.runtime.purging import Purging
from perf_middleware.caching.runtime.tracked import Tracked
from perf_middleware.caching.special import SpecialFields
from perf_middleware.caching.stored import US_PER_S
from perf_middleware.caching.stores.memory import MemoryStore
from perf_middleware.caching.variants import Variants
from perf_middleware.caching.warming.decorators import Warmer
from perf_middleware.clock import monotonic_us
from perf_middleware.path_patterns import PathPattern
from perf_middleware.route_templates import UNMATCHED, RouteTemplates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from starlette.requests import HTTPConnection

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.cache_status import Forward
    from perf_middleware.caching.fields import Headers, Lines
    from perf_middleware.caching.runtime.request import CacheRequest
    from perf_middleware.caching.runtime.tracked import Begun
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.stores.shared import SharedStore
    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.fleet.runtime import Fleet

logger = logging.getLogger("perf_middleware.caching")

Happening = Literal["store", "hit", "invalidate"]
EARLY_WINDOW: Final = 7  # times what it takes to make; a draw beyond has a chance below 1 in 1,000
PURGED_AT_ONCE: Final = 250  # about 3 ms
ROOTS_MAX: Final = 16  # a proxy's client may choose them
NAME: Final = "perf_middleware"


class ResponseCache:
    """A shared HTTP cache (RFC 9111) in front of one app, in this process's memory.

    `rules` are looked at in their order, the first that matches a path holds.  `wall_s` gives Unix
    seconds (dates in header fields), `clock` monotonic microseconds (ages), `draw` a number from 0
    to 1 for every hit near the end of its freshness.
    """

    def __init__(
        self,
        *,
        bytes_max: int = 64 << 20,
        entries_max: int = 50_000,
        rules: Sequence[tuple[PathPattern, CachePolicy]] = (),
        options: CacheOptions | None = None,
        name: str = NAME,
        clock: Clock = monotonic_us,
        wall_s: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.options = options or CacheOptions()
        self.clock = clock
        self.wall_s = wall_s
        self._draw = draw
        self.early_windows = self.options.early_refresh * EARLY_WINDOW
        self.store = MemoryStore(bytes_max=bytes_max, entries_max=entries_max, now_us=clock())
        self.rules = RuleBook(rules)
        self.judge = Judge(self.options)
        self.known_heads = KnownHeads(self.judge)
        ignored = self.options.ignored_cookies
        self.special = SpecialFields(
            credentials=self.options.credentials,
            ignored_cookies=IgnoredCookies(ignored) if ignored else None,
        )
        self.status_field = CacheStatus(name)
        self.shown_status = self.status_field if self.options.status_header else None
        self.figures = CacheFigures()
        self._evictions_before = 0  # the last reset of the counts
        self.evidence = Evidence(self.figures)
        self.flights = Flights(waiting_max=self.options.waiting_max)
        self.purges = PurgeLog()
        self.purging = Purging(self)
        self.tracked = Tracked(clock)
        self.warmer = Warmer()
        self.shared: SharedStore | None = None
        self.roots: set[bytes] = set()  # that the app is served below
        self.refreshing: set[bytes] = set()
        self.storing_bytes = 0
        self.storing_bytes_max = max(
            int(bytes_max * self.options.storing_share_max), self.options.entry_bytes_max
        )
        self.refused = Refused()
        self.unstorable = self.refused.of_urls  # each miss looks there
        self.name_route: Callable[[str], None] | None = None
        self.note_part: Callable[[str, int], None] | None = None
        self.router_scope: Callable[[Scope], Scope] | None = None  # as the router saw it
        self.follow: Callable[[Scope], None] | None = None  # told of the scope of a hit
        self.is_overloaded: Callable[[], bool] | None = None  # then nothing is refreshed
        self.templates = RouteTemplates()
        self._naming_failed = False  # told in the log, once
        self._hooks: dict[Happening, list[Callable[[StoredResponse], object]]] = {
            "store": [], "hit": [], "invalidate": [],
        }  # fmt: skip
        self.hit_hooks, self._store_hooks = self._hooks["hit"], self._hooks["store"]

    # --- what the app's code may do -------------------------------------------------------------

    async def purge(
        self,
        *,
        url: str | None = None,
        pattern: str | None = None,
        tags: Iterable[str] | str | None = None,
        everything: bool = False,
        soft: bool = False,
    ) -> int:
        """Invalidate stored responses; how many there were.

        By `url` (`/items/5?page=2`, of any host; with scheme and host, of that origin) in whichever
        spelling, by `pattern` over paths (`/items/*`, `/items/{id}`), by `tags` (any of them), or
        `everything`.
        `soft` makes them stale instead: they may still be served while the app is asked anew.
        No tags at all are none to purge.  Raises ValueError without exactly one of the four and for
        a pattern that is none, TypeError for what is no text.
        """
        if sum((url is not None, pattern is not None, tags is not None, everything)) != 1:
            raise ValueError("purge needs exactly one of url, pattern, tags and everything")
        for text in (url, pattern):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"purge needs a text, not {text!r}")
        tags = None if tags is None else listed("tags", tags)
        if url is not None:
            return await self.purging.url(url, soft=soft)
        if pattern is not None:
            return await self.purging.matching(PathPattern.of(pattern), soft=soft)
        if tags is not None:
            return await self.purging.tags(tuple(tags), soft=soft)
        return await self.purging.everything(soft=soft)

    async def explain(
        self,
        request: str | HTTPConnection,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """What is stored of a URL, and what a request for it would get and why; JSON-able.

        `request` is a URL (`/items/5`, of any host, or with scheme and host), with the `method` and
        `headers` that it would have, or a Starlette request as it came.  Asks the app nothing; of
        the store that all processes share it tells whether it is used and has this response.
        Raises ValueError for what no client can send: no URL, no method, no header field.
        """
        if isinstance(request, str):
            scope = scope_of(request, method=method, headers=headers or {})
        else:
            scope = request.scope
        told, asked = explain(self, scope)
        if self.shared is not None:
            told["shared"] = await self.shared.explain(asked)
        return told

    async def shrink(self, share: float) -> int:
        """Let go of `share` of the bytes in this process's memory, the least asked for first: how
        many bytes.

        They are not taken again before `grow_back`: what comes in makes something else leave.  What
        other processes and the shared store have stays.  On the event loop, which gets its turns.
        Raises ValueError for no share.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share!r}")
        store = self.store
        store.expire(self.clock())
        before_bytes = store.size_bytes
        kept_bytes = int(before_bytes * (1 - share))
        while not store.shrink(kept_bytes, entries=PURGED_AT_ONCE):
            await anyio.lowlevel.checkpoint()
        return before_bytes - store.size_bytes

    def grow_back(self) -> None:
        """Let it grow up to its `bytes_max` again; from any thread."""
        self.store.grow_back()

    def on(self, happening: Happening, tell: Callable[[StoredResponse], object]) -> None:
        """Call `tell` with the stored response at each `store`, `hit` or `invalidate`.

        It runs on the event loop and must be quick; what it raises is logged, nothing else.
        Raises ValueError for any other happening.
        """
        hooks = self._hooks.get(happening)
        if hooks is None:
            raise ValueError(f"{happening!r} does not happen; there are {', '.join(self._hooks)}")
        hooks.append(tell)

    # --- what the middleware does ---------------------------------------------------------------

    def keep(self, stored: StoredResponse, now_us: int) -> bool:
        """Put `stored` into the store; False where it has no room."""
        if not self.store.put(stored, now_us=now_us):
            return False
        stored.counts = self.figures.of(stored.route)
        stored.refresh_early(self.early_windows)
        since_us = now_us - stored.stored_us
        stored.received_s = (int(self.wall_s() * US_PER_S) - since_us) // US_PER_S
        self.note_stored(stored)
        return True

    def note_stored(self, stored: StoredResponse) -> None:
        """Count what is in the store from now on, and tell of it."""
        counts = stored.counts
        counts.stored += 1
        counts.stored_bytes += len(stored.body)
        if self.unstorable or self.refused.of_answers:
            self.refused.forget(stored.primary)
        if self._store_hooks:
            self.tell("store", stored)

    def key_for(self, request: CacheRequest, vary: tuple[bytes, ...]) -> bytes | None:
        """The key in memory of a response to `request` that varies by `vary`."""
        primary = request.primary
        if not vary and not isinstance(self.store.peek(primary), Variants):
            return primary  # without a look at the request's fields
        return self.store.key_of(primary, vary, request.lines)

    def take_in(self, stored: StoredResponse, now_us: int) -> None:
        """Keep in memory what another process has stored for all, if there is room."""
        counts = stored.counts = self.figures.of(stored.route)
        counts.shared_hits += 1
        stored.refresh_early(self.early_windows)
        if self.unstorable or self.refused.of_answers:
            self.refused.forget(stored.primary)
        if not stored.dependencies or not self.tracked.may_not_use(stored):
            self.store.put(stored, now_us=now_us)

    def forms_of(self, stored: StoredResponse) -> CodedForms:
        """The coded forms of a stored body; new ones find their room when they are of use."""
        return stored.forms or CodedForms(stored.body, grow=partial(self.store.grow, stored.key))

    def let_go(self, stored: StoredResponse) -> None:
        """The app has shown that `stored` holds no more; what has taken its place stays."""
        self.store.drop_this(stored)
        if self.shared is not None:
            self.shared.forget(stored)

    def share(self, fleet: Fleet) -> None:
        """From now on store for all processes too."""
        # Here and not above: redis-py takes a quarter of a second to import.
        from perf_middleware.caching.stores.shared import SharedStore

        shared = self.shared = SharedStore(fleet, self, queued_bytes_max=self.storing_bytes_max)
        self.flights.on_lease_over = shared.leases.over

    def confirmed(
        self,
        stored: StoredResponse,
        sent: Iterable[tuple[bytes, bytes]],
        lines: Lines,
        request: CacheRequest,
        *,
        purges_seen: int,
        begun: Begun | None = None,
    ) -> tuple[StoredResponse, bool]:
        """`stored` with the fields of an answer that confirms it, and whether it is in the store.

        The second is False where it is good for the one request alone.
        """
        renewed, may_keep = confirmed(
            self, stored, sent, lines, request, purges_seen=purges_seen, begun=begun
        )
        renewed.refresh_early(self.early_windows)
        if not may_keep:
            return renewed, False
        if self.shared is not None:
            seen = purges_seen if begun is None else begun[0].since(purges_seen)
            self.shared.share(renewed, request.lines, purges_seen=seen)
        return renewed, self.store.put(renewed, now_us=self.clock())

    def forward_fields(
        self,
        stored: StoredResponse,
        reason: Forward,
        *,
        status: int | None = None,
        collapsed: bool = False,
        detail: str | None = None,
    ) -> Headers:
        """Age and Cache-Status of an answer for which the app was asked."""
        age_s = stored.age_s(self.clock())
        # Age says that the app did not validate it for this request (RFC 9111 §5.1).
        fields = [] if status == 304 and not age_s else [(b"age", b"%d" % age_s)]
        if self.options.status_header:
            value = self.status_field.forward(
                reason, status=status, collapsed=collapsed, detail=detail
            )
            fields.append((b"cache-status", value))
        return fields

    def is_due_early(self, stored: StoredResponse, now_us: int) -> bool:
        """Whether this hit is the one that refreshes `stored` before it is stale.

        The nearer its end and the dearer its making, the likelier: of many requests about one comes
        early enough, and never all at once.
        Source: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede Prevention,
        VLDB 2015 (XFetch).
        """
        left_us = stored.fresh_until_us - now_us
        gap_us = stored.produced_us * self.options.early_refresh * -log(1.0 - self._draw())
        return gap_us >= left_us

    def route_of(self, scope: Scope, root_path: str) -> str:
        """The template of the route that the router took, as the metrics call it."""
        try:
            return self.templates.template_of(scope, root_path)
        except Exception:
            if not self._naming_failed:
                self._naming_failed = True
                logger.exception("a request's route could not be named; it counts as unmatched")
            return UNMATCHED

    def note_root(self, scope: Scope) -> None:
        """Remember the root_path that the app is served below."""
        root = root_of(scope)
        if root and len(self.roots) < ROOTS_MAX:
            self.roots.add(root)

    def tell(self, happening: Happening, stored: StoredResponse) -> None:
        """Call every hook of `happening`; one that raises is logged and harms nothing else."""
        for hook in self._hooks[happening]:
            try:
                hook(stored)
            except Exception:
                logger.exception("a hook of the response cache failed at %r", happening)

    # --- what operators see ---------------------------------------------------------------------

    def families(self) -> Iterator[Family]:
        """The figures for /metrics; what has expired is let go of first and not counted."""
        store = self.store
        store.expire(self.clock())
        yield from self.figures.families(
            entries=store.responses,
            size_bytes=store.size_bytes,
            bytes_max=store.room_bytes,
            evictions=store.evictions - self._evictions_before,
            waiting=self.flights.waiting,
        )
        if self.shared is not None:
            yield from self.shared.families()

    def reset_counts(self) -> None:
        """Every count back to zero; what is stored stays."""
        self.figures.reset()
        if self.shared is not None:
            self.shared.reset_counts()
        self._evictions_before = self.store.evictions

    def status(self) -> dict[str, Any]:
        """The totals and the size of the store, JSON-able."""
        return self.figures.totals() | {
            "entries": self.store.responses,
            "bytes": self.store.size_bytes,
            "bytes_max": self.store.room_bytes,
            "evictions": self.store.evictions - self._evictions_before,
            "shared": None if self.shared is None else self.shared.status(),
            "tracked": self.tracked.status(),
        }

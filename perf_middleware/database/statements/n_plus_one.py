"""N+1: the same statement, from the same place, again and again within one request.

    for order in orders:          1 statement for the orders, then one for each:
        print(order.customer)     SELECT ... FROM customers WHERE customers.id = ?     x 50

A request's tally counts by fingerprint and place; from `repeats_min` on that is a finding, unless
SQLAlchemy says that the statement belongs to an eager loader, which splits long lists by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

    from perf_middleware.database.statements.fingerprint import Fingerprint

TALLY_MAX: Final = 500  # fingerprints of one request; later ones are not looked at
LOOKS: Final = 4

LoadKind: TypeAlias = Literal["statement", "lazy", "eager", "columns"]


@dataclass(frozen=True, slots=True)
class Load:
    """What a statement is for: the app's own, or a loader's that the ORM ran by itself.

    `path` are the relationships that lead to what is loaded, `Customer.orders`, outermost first;
    `many` says whether the last of them is a list.  `columns` is a load of the attributes of one
    object, of the class that `path` names: expired ones after a commit, or deferred ones.
    """

    kind: LoadKind = "statement"
    path: tuple[str, ...] = ()
    many: bool = False


OWN: Final = Load()


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code; `is_own` where it is the app's, else the outermost code that is known."""

    file: str
    line: int
    function: str
    is_own: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Repeat:
    """How often one statement ran in one request; from its finding on, from the place of that."""

    __slots__ = (
        "_first_ns",
        "_only",
        "_only_count",
        "_only_ns",
        "_places",
        "count",
        "elapsed_ns",
        "fingerprint",
        "is_found",
        "load",
        "looks",
        "place",
    )

    def __init__(self, fingerprint: Fingerprint, first_ns: int) -> None:
        self.fingerprint = fingerprint
        self.count = 1
        self.elapsed_ns = first_ns
        self._first_ns = first_ns
        self.looks = 0
        self.is_found = False
        self.load: Load | None = None  # both known from the finding on
        self.place: Place | None = None
        self._only: Hashable | None = None  # the one place so far
        self._only_count = 0
        self._only_ns = 0
        self._places: dict[Hashable, list[int]] | None = None  # from the second on: all

    def came_from(self, place: Hashable, elapsed_ns: int) -> int:
        """Count one more run, at `place`; how many those are now."""
        self.looks += 1
        places = self._places
        if places is None:
            if self._only is None:
                self._only = place
            if self._only == place:
                self._only_count += 1
                self._only_ns += elapsed_ns
                # The first run was not looked at: where there is one place only, it was that one.
                return self._only_count + 1
            places = self._places = {self._only: [self._only_count, self._only_ns]}
        seen = places.get(place)
        if seen is None:
            seen = places[place] = [0, 0]
        seen[0] += 1
        seen[1] += elapsed_ns
        return seen[0]

    def found_at(self, place: Hashable) -> None:
        """This is a finding: what is counted from now on goes to this place."""
        self.is_found = True
        if self._places is None:
            self.count = self._only_count + 1
            self.elapsed_ns = self._only_ns + self._first_ns
        else:
            self.count, self.elapsed_ns = self._places[place]
            self._places = None


class RequestTally:
    """Statements of one request by fingerprint, and by place those that run more than once.

    To find the place costs more than all the rest, so it is looked for only where it can matter:
    not at the first run of a statement (which counts with the place that all others have), not
    after its finding, and `LOOKS` times `repeats_min` at most for one that comes from many places.
    """

    __slots__ = ("_repeats", "_repeats_min", "has_found")

    def __init__(self, repeats_min: int) -> None:
        self._repeats_min = repeats_min
        self.has_found = False
        self._repeats: dict[str, Repeat | int] = {}  # of what ran once its time alone

    def add(self, fingerprint: Fingerprint, elapsed_ns: int) -> Repeat | None:
        """Count one statement; its Repeat where the place is to be looked for: go on with `at`."""
        repeats, key = self._repeats, fingerprint.id
        repeat = repeats.get(key)
        if repeat is None:
            if len(repeats) < TALLY_MAX:
                repeats[key] = elapsed_ns
            return None
        if isinstance(repeat, int):
            repeat = repeats[key] = Repeat(fingerprint, repeat)
        repeat.count += 1
        repeat.elapsed_ns += elapsed_ns
        if repeat.is_found or repeat.looks >= LOOKS * self._repeats_min:
            return None
        return repeat

    def at(self, repeat: Repeat, place: Hashable, elapsed_ns: int) -> bool:
        """Count where it came from; True at the very call that makes it a finding.

        Whoever is told so says what it is: `place` and `load`.
        """
        if repeat.came_from(place, elapsed_ns) < self._repeats_min or repeat.is_found:
            return False
        repeat.found_at(place)
        self.has_found = True
        return True

    def findings(self) -> list[Repeat]:
        """Those that repeated, and are no eager loader's."""
        return [
            repeat
            for repeat in list(self._repeats.values())  # a thread of the request may go on
            if not isinstance(repeat, int)
            and repeat.load is not None
            and repeat.load.kind != "eager"
        ]


def fix_of(load: Load, verb: str) -> str:
    """What to write instead, in SQLAlchemy's words."""
    if load.kind == "lazy" and load.path:
        if load.many:
            return f".options({_chained('selectinload', load.path)})"
        # One more join for a single row each; lists would multiply the rows.
        *before, last = load.path
        chain = f"{_chained('selectinload', before)}." if before else ""
        return f".options({chain}joinedload({last}))"
    if load.kind == "columns":
        name = load.path[-1] if load.path else "the class"
        return (
            f"load the columns of {name} with its query (undefer(...)), or keep them after a "
            "commit: sessionmaker(expire_on_commit=False)"
        )
    if verb == "insert":
        return "one statement for all rows: execute(insert(...), [{...}, ...]) or add_all([...])"
    if verb in ("update", "delete"):
        return f"one {verb} for all rows: .where(key.in_(keys)), or execute(..., [{{...}}, ...])"
    return "one statement for all: .where(key.in_(keys)), or a join"


def _chained(loader: str, path: list[str] | tuple[str, ...]) -> str:
    return ".".join(f"{loader}({each})" for each in path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One repeated statement of one route, as it is told."""

    route: str
    fingerprint: Fingerprint
    count: int
    elapsed_ns: int
    place: Place
    source: str
    load: Load

    @property
    def fix(self) -> str:
        """What to write instead."""
        return fix_of(self.load, self.fingerprint.verb)

    def line(self) -> str:
        """The log line."""
        at = f"{self.place}: {self.source}" if self.source else str(self.place)
        what = f" ({self.load.path[-1]}, loaded lazily)" if self.load.kind == "lazy" else ""
        return (
            f"repeated statement: {self.route} ran {self.fingerprint.label} {self.count} times in "
            f"one request, {self.elapsed_ns / 1e9:.3f} s{what}, at {at}; instead: {self.fix}; "
            f"statement: {self.fingerprint.text}"
        )

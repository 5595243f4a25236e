"""What was asked for: quotas and rules of the settings, marks on endpoints, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from perf_middleware.limits.rate.keys import CLIENT, KeySpec

if TYPE_CHECKING:
    from perf_middleware.limits.rate.keys import OwnKey
    from perf_middleware.limits.rate.limit_texts import Limit
    from perf_middleware.path_patterns import PathPattern

ATTRIBUTE: Final = "__perf_ratelimit__"
"""Where an endpoint carries its marks: a tuple of them, the outermost last."""

NAME_CHARS_MAX: Final = 100
ALL: Final = "all"
"""What figures call requests that no quota was asked about: no quota may have this name."""

Place: TypeAlias = Literal["outer", "inner"]
Per: TypeAlias = Literal["request", "message"]
WhenDown: TypeAlias = Literal["local", "open", "closed"]
OwnCost: TypeAlias = Callable[[Mapping[str, Any]], int]
OwnExemption: TypeAlias = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSpec:
    """One quota; `name` None: it is named after where it stands.

    `key` and `cost` may be the app's own functions of a scope.  `place` None: inner where the key
    needs the app's authentication, else outer.
    """

    limit: Limit
    name: str | None = None
    key: KeySpec | OwnKey = CLIENT
    cost: int | OwnCost = 1
    exempt: OwnExemption | None = None
    when_down: WhenDown = "local"
    dry_run: bool = False
    place: Place | None = None
    per: Per = "request"

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        if not callable(self.cost) and not 1 <= self.cost <= self.limit.quota().burst:
            raise ValueError(
                f"a cost is 1 to the burst ({self.limit.quota().burst}), not {self.cost}: "
                "what costs more would never pass"
            )

    @property
    def stands(self) -> Place:
        if self.place is not None:
            return self.place
        return "inner" if isinstance(self.key, KeySpec) and self.key.needs_user else "outer"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """What holds for some paths.  `quotas`: names of the settings' quotas, or own ones.

    `quotas` None: those that hold everywhere; `cost` is what a request here draws from each.
    """

    pattern: PathPattern
    methods: frozenset[str] | None = None
    quotas: tuple[str | QuotaSpec, ...] | None = None
    cost: int = 1
    exempt: bool = False

    @property
    def name(self) -> str:
        """How its own buckets and quotas are called."""
        name = self.pattern.text
        if self.methods is not None:
            name = f"{' '.join(sorted(self.methods))} {name}"
        return name


@dataclass(frozen=True, slots=True)
class Exempt:
    """A mark: no quota holds for the endpoint."""


Mark: TypeAlias = "QuotaSpec | Exempt"


def check_name(name: str) -> str:
    """`name`; raises ValueError for what cannot name a quota in fields, figures and keys."""
    if not name or name == ALL or len(name) > NAME_CHARS_MAX or "|" in name:
        raise ValueError(
            f"a quota's name has 1 to {NAME_CHARS_MAX} characters, no |, and is not {ALL!r}"
        )
    if not (name.isascii() and name.isprintable()):
        raise ValueError(f"a quota's name is of printable ASCII: {name!r}")
    return name


def as_name(text: str) -> str:
    """What comes closest to `text` and may name a quota."""
    told = "".join(c if c.isascii() and c.isprintable() and c != "|" else "?" for c in text)
    if not told or told == ALL:
        return f"quota {told}".strip()
    return told if len(told) <= NAME_CHARS_MAX else told[: NAME_CHARS_MAX - 3] + "..."

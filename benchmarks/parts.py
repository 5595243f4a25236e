"""The parts of the report: what each one runs in the short and in the full form, and how it reads.

A part is a benchmark that can be run by itself as well; here it gets how much to measure, and its
results become a table on docs/performance.md between the marks of its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, get_type_hints

from benchmarks import (
    assembled,
    compression,
    eviction,
    exposition,
    layers,
    rate_limit,
    response_cache,
    stacks,
    values,
)
from benchmarks.runner import Plan, Report
from benchmarks.tables import (
    added_picture,
    coded_table,
    evictions_picture,
    evictions_tables,
    hits_picture,
    hits_table,
    report_table,
    scrapes_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from benchmarks.runner import LoopName

FormName = Literal["short", "full", "cut"]
"""`cut`: the full one with fewer rounds of each table."""
LOOPS: Final[tuple[LoopName, ...]] = ("uvloop", "asyncio") if find_spec("uvloop") else ("asyncio",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How much is measured: so many rounds of each table, or seconds, what comes first.

    The parts in `leaves_out` are run only where they are asked for.
    """

    name: FormName
    rounds: int
    seconds_max: float
    other_rounds: int  # of the parts whose rounds are longer
    evictions: eviction.Extent
    leaves_out: frozenset[str] = frozenset()

    def plan(self, *, requests: int = 80, share: float = 1.0, loop: LoopName = LOOPS[0]) -> Plan:
        """Of one table; the loop turns behind each request, as it does in a server."""
        return Plan(
            rounds=self.rounds,
            requests=requests,
            seconds_max=self.seconds_max * share,
            loop=loop,
            turns=True,
        )


SHORT: Final = Form(
    name="short",
    rounds=60,
    seconds_max=8.0,
    other_rounds=3,
    evictions=eviction.QUICK,
    leaves_out=frozenset({"growth"}),  # to store 100,000 entries alone takes a minute
)
FULL: Final = Form(
    name="full", rounds=600, seconds_max=120.0, other_rounds=300, evictions=eviction.NORMAL
)
FORMS: Final[dict[FormName, Form]] = {form.name: form for form in (SHORT, FULL)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`kind` is the type of one result, `markdown` shows all of them, `picture` some."""

    name: str
    run: Callable[[Form], Sequence[Any]]
    kind: Any
    markdown: Callable[[Sequence[Any]], str]
    picture: Callable[[Sequence[Any]], str] | None = None


def one_below_another(table: Callable[[Any], str]) -> Callable[[Sequence[Any]], str]:
    return lambda found: "\n\n".join(map(table, found))


def run_stacks(form: Form) -> list[Report]:
    """Both routes on each loop."""
    return [report for loop in LOOPS for report in stacks.run(form.plan(loop=loop))]


def run_values(form: Form) -> list[Report]:
    """Fewer rounds: a hit of a function differs less from round to round than a request."""
    return values.run(rounds=max(1, min(form.rounds // 3, 60)), calls=500, loop=LOOPS[0])


PARTS: Final = (
    Part(
        name="stacks",
        run=run_stacks,
        kind=Report,
        markdown=one_below_another(report_table),
        picture=added_picture,
    ),
    Part(
        name="hit",
        run=lambda form: assembled.run(form.plan(requests=20)),
        kind=response_cache.Table,
        markdown=one_below_another(hits_table),
        picture=hits_picture,
    ),
    Part(
        name="telemetry",
        run=lambda form: layers.run(form.plan()),
        kind=Report,
        markdown=one_below_another(report_table),
    ),
    Part(
        name="cache",
        run=lambda form: response_cache.run(form.plan(requests=40)),
        kind=response_cache.Table,
        markdown=one_below_another(hits_table),
        picture=hits_picture,
    ),
    Part(
        name="values",
        run=run_values,
        kind=Report,
        markdown=one_below_another(report_table),
    ),
    Part(
        name="compression",
        run=lambda form: compression.run(form.plan(requests=200, share=0.3)),
        kind=compression.Coded,
        markdown=one_below_another(coded_table),
    ),
    Part(
        name="rate-limit",
        run=lambda form: rate_limit.run(form.plan(requests=200, share=0.4)),
        kind=Report,
        markdown=one_below_another(report_table),
    ),
    Part(
        name="scrapes",
        run=lambda form: exposition.run(scrapes=min(form.rounds, 30), loop=LOOPS[0]),
        kind=exposition.Row,
        markdown=scrapes_table,
    ),
    Part(
        name="evictions",
        run=lambda form: eviction.run(form.evictions),
        kind=eviction.Comparison | eviction.Speeds | eviction.Overhead,
        markdown=evictions_tables,
        picture=evictions_picture,
    ),
)
# Parts that bring their own processes, or their own way to compare.  Each module has a `Plan` (and
# a `QUICK` one where it has a short form), `run(plan)`, which gives one result or a list of them,
# and `markdown`, whose argument says of which type a result is; it may have `picture`.
OTHERS: Final = {"served": "benchmarks.over_servers", "growth": "benchmarks.growth"}


def all_parts() -> list[Part]:
    """Those above, and of the others those whose module is there."""
    there = {name: each for name, each in OTHERS.items() if find_spec(each) is not None}
    return [*PARTS, *(part_of(name, import_module(each)) for name, each in there.items())]


def part_of(name: str, module: ModuleType) -> Part:
    """The part that a module makes by itself."""
    hints = get_type_hints(module.markdown)
    return Part(
        name=name,
        run=partial(_run_module, module),
        kind=next(iter(hints.values())),
        markdown=one_below_another(module.markdown),
        picture=getattr(module, "picture", None),
    )


def _run_module(module: ModuleType, form: Form) -> Sequence[Any]:
    plan = module.QUICK if form.name == "short" and hasattr(module, "QUICK") else module.Plan()
    plan = replace(plan, rounds=min(plan.rounds, form.other_rounds))
    if hasattr(plan, "seconds_max"):
        plan = replace(plan, seconds_max=min(plan.seconds_max, form.seconds_max))
    found = module.run(plan)
    return found if isinstance(found, list) else [found]

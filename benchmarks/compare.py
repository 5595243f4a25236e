"""Is this tree slower than an older revision?  Both run in one job, in turns: a gate for changes.

    git worktree of BASE -> base/perf_middleware   \\    a pair of fresh processes, idle but for the
    this tree            -> head/perf_middleware   /    one that is asked:  B H H B | H B B H | ...

Both sides are run by this tree's benchmarks, with one Python and its installed libraries, so that
only the package differs.  A round asks each side twice for each case, mirrored (what the machine
does meanwhile hits both), in an order drawn anew; a pair of processes gives one value for each
case, the median of its rounds; then a new pair is launched.  What is made of the values:
significance.py.  The bare app has nothing of ours in it: where it differs, nothing is believed.

    python -m benchmarks.compare v1.2.0       # or: make bench-compare BASE=v1.2.0

Exit code: 0 no regression, 1 a regression, 2 it could not be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.compare_worker import CONTROL
from benchmarks.runner import CheckError, write_json
from benchmarks.significance import Bar, Verdict, pairs_min, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.runner import LoopName

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "perf_middleware"
NO_REGRESSION, REGRESSION, NOT_MEASURED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: pairs of processes, rounds of each, requests of a round and side."""

    pairs: int = 20
    rounds: int = 25
    requests: int = 120
    seed: int = 1
    loop: LoopName = "uvloop"

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.rounds < 1 or self.requests < 2:
            raise ValueError(f"at least one pair, one round and two requests: {self}")


QUICK: Final = Plan(pairs=10, rounds=20, requests=80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One case: microseconds of both sides (medians), and what the comparison says."""

    name: str
    base_us: float
    head_us: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One run.  `control` is the bare app; `missing` says why a case has no row."""

    base: str
    plan: Plan
    bar: Bar
    python: str
    control: Compared
    rows: tuple[Compared, ...]
    missing: dict[str, str]

    @property
    def is_trusted(self) -> bool:
        """Whether the machine was fair to both sides: the bare app is the same on both."""
        return self.control.verdict.outcome == "same"

    @property
    def pairs_needed(self) -> int:
        """The fewest pairs that can find anything."""
        return pairs_min(self.bar.alpha, len(self.rows))

    @property
    def exit_code(self) -> int:
        if not self.is_trusted or not self.rows or self.plan.pairs < self.pairs_needed:
            return NOT_MEASURED
        slower = any(row.verdict.outcome == "slower" for row in self.rows)
        return REGRESSION if slower else NO_REGRESSION


def run(base: str, plan: Plan, *, bar: Bar | None = None, burn_us: float = 0.0) -> Comparison:
    """Compare this tree with the revision `base`; head burns `burn_us` more, for a trial.

    Raises CheckError where the revision is unknown, or a side does not run.
    """
    with tempfile.TemporaryDirectory(prefix="perf-compare-") as made:
        sides = (Path(made) / "base", Path(made) / "head")
        with worktree(base, Path(made) / "tree") as tree:
            lay_out(tree, sides[0])
        lay_out(ROOT, sides[1])
        return between(sides, base, plan, bar=bar or Bar(), burn_us=burn_us)


@contextmanager
def worktree(revision: str, path: Path) -> Iterator[Path]:
    """The files of a revision, in a temporary worktree of this repository."""
    git = ["git", "-C", str(ROOT)]
    add = [*git, "worktree", "add", "--quiet", "--detach", str(path), f"{revision}^{{commit}}"]
    try:
        done = subprocess.run(add, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CheckError(f"git does not run: {error}") from error
    if done.returncode:
        raise CheckError(f"no worktree of {revision!r}: {done.stderr.strip()}")
    try:
        yield path
    finally:
        remove = [*git, "worktree", "remove", "--force", str(path)]
        subprocess.run(remove, capture_output=True, check=False)


def lay_out(tree: Path, side: Path) -> None:
    """The package of `tree` beside the benchmarks of this one: what a worker imports."""
    if not (tree / PACKAGE).is_dir():
        raise CheckError(f"there is no {PACKAGE} in that revision")
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(tree / PACKAGE, side / PACKAGE, ignore=compiled)
    shutil.copytree(ROOT / "benchmarks", side / "benchmarks", ignore=compiled)


def between(
    sides: tuple[Path, Path], base: str, plan: Plan, *, bar: Bar, burn_us: float = 0.0
) -> Comparison:
    """Compare two folders that `lay_out` made."""
    draw = random.Random(plan.seed)
    log_ratios: dict[str, list[float]] = {}
    spent_us: dict[str, list[tuple[float, float]]] = {}
    missing: dict[str, str] = {}
    for _ in range(plan.pairs):
        pair = _pair(sides, plan, draw, burn_us)
        missing |= pair.missing
        for name, rounds in pair.rounds.items():
            log_ratios.setdefault(name, []).append(
                median(math.log(head / base) for base, head in rounds)
            )
            spent_us.setdefault(name, []).extend(rounds)
    if CONTROL not in log_ratios:
        raise CheckError(f"the {CONTROL} does not run: {missing}")
    for name in missing:
        log_ratios.pop(name, None)  # some launches only: no sample
    judged = verdicts({name: log_ratios[name] for name in log_ratios if name != CONTROL}, bar)
    judged |= verdicts({CONTROL: log_ratios[CONTROL]}, bar)

    def compared(name: str) -> Compared:
        base_us, head_us = (median(side) for side in zip(*spent_us[name], strict=True))
        return Compared(name=name, base_us=base_us, head_us=head_us, verdict=judged[name])

    return Comparison(
        base=base,
        plan=plan,
        bar=bar,
        python=platform.python_version(),
        control=compared(CONTROL),
        rows=tuple(compared(name) for name in log_ratios if name != CONTROL),
        missing=missing,
    )


# --- one pair of processes ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rounds:
    rounds: dict[str, list[tuple[float, float]]]
    """Of each case: microseconds per request of base and of head, round by round."""
    missing: dict[str, str]


class Worker:
    """One side's process: `spend` asks it for requests of a case."""

    def __init__(self, process: subprocess.Popen[str], side: Path) -> None:
        self._process = process
        self._side = side

    def ready(self) -> tuple[list[str], dict[str, str]]:
        """The cases it has, and why not the others.  Raises CheckError where it did not start."""
        told = json.loads(self._line())
        if not Path(told["package"]).is_relative_to(self._side.resolve()):
            raise CheckError(f"a worker of {self._side} runs {told['package']}")
        return told["cases"], {
            name: f"{self._side.name}: {why}" for name, why in told["missing"].items()
        }

    def spend(self, case: str, requests: int) -> int:
        """CPU nanoseconds for so many requests."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case} {requests}\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckError(f"a worker of {self._side.name} ended: its errors are above")
        return line


@contextmanager
def working(side: Path, plan: Plan, *, hash_seed: int, burn_us: float = 0.0) -> Iterator[Worker]:
    """A process of one side.  Settings of this environment are not its."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PERFORMANCE_")
    } | {"PYTHONPATH": str(side), "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "benchmarks.compare_worker", "--loop", plan.loop]
    with subprocess.Popen(
        [*command, "--burn-us", str(burn_us)],
        cwd=side, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Worker(process, side)
        finally:
            process.kill()


def _pair(sides: tuple[Path, Path], plan: Plan, draw: random.Random, burn_us: float) -> _Rounds:
    # One seed for both: the order in which hashes fall differs between pairs, not within one.
    hash_seed = draw.randrange(1, 2**32)
    with ExitStack() as running:
        base, head = (
            running.enter_context(working(side, plan, hash_seed=hash_seed, burn_us=burns))
            for side, burns in zip(sides, (0.0, burn_us), strict=True)
        )
        (in_base, missing), (in_head, not_in_head) = base.ready(), head.ready()
        missing |= not_in_head
        names = [name for name in in_base if name in in_head]
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        requests = plan.requests // 2
        order = list(names)
        for _ in range(plan.rounds):
            draw.shuffle(order)
            for name in order:
                one, other = (base, head) if draw.random() < 0.5 else (head, base)
                spent_ns = Counter({one: 0, other: 0})
                for worker in (one, other, other, one):
                    spent_ns[worker] += worker.spend(name, requests)
                each = 2 * requests * 1000
                rounds[name].append((spent_ns[base] / each, spent_ns[head] / each))
    return _Rounds(rounds, missing)


# --- what is told -------------------------------------------------------------------------------


def table(comparison: Comparison) -> str:
    """The comparison as Markdown, and its result in words."""
    plan, bar = comparison.plan, comparison.bar
    lines = [
        (
            f"### This tree beside {comparison.base}: {plan.pairs} pairs of processes x "
            f"{plan.rounds} rounds x {plan.requests} requests, {plan.loop}, "
            f"Python {comparison.python}"
        ),
        "",
        f"| | base us | head us | ratio | {1 - bar.alpha:.0%} interval | p | p (Holm) | |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in (comparison.control, *comparison.rows):
        said = row.verdict
        lines.append(
            f"| {row.name} | {row.base_us:.2f} | {row.head_us:.2f} | {said.ratio:.3f} "
            f"| {said.low:.3f} .. {said.high:.3f} | {said.p:.4f} | {said.p_holm:.4f} "
            f"| {said.outcome} |"
        )
    lines += ["", *(f"{name}: no row, {why}" for name, why in comparison.missing.items())]
    lines.append(_result(comparison))
    return "\n".join(lines)


def _result(comparison: Comparison) -> str:
    what = (
        f"significant at {comparison.bar.alpha:g} (Holm) and, by the interval's end, by more than "
        f"{comparison.bar.threshold:.0%}"
    )
    if not comparison.rows:
        return "NOT MEASURED: no case runs on both sides"
    if comparison.plan.pairs < comparison.pairs_needed:
        return f"NOT MEASURED: nothing is found with fewer than {comparison.pairs_needed} pairs"
    if not comparison.is_trusted:
        return f"NOT MEASURED: even the {CONTROL}, with nothing of ours, differs: {what}"
    slower = [row.name for row in comparison.rows if row.verdict.outcome == "slower"]
    if slower:
        return f"REGRESSION: {', '.join(slower)}: {what}"
    return f"no regression: no case is slower, {what}"


def trials(plan: Plan, *, count: int, bar: Bar, burn_us: float) -> list[Comparison]:
    """This tree beside itself, so many times: how often it is a regression all the same."""
    made = []
    with tempfile.TemporaryDirectory(prefix="perf-compare-") as folder:
        sides = (Path(folder) / "base", Path(folder) / "head")
        for side in sides:
            lay_out(ROOT, side)
        for number in range(count):
            seeded = replace(plan, seed=plan.seed + number)
            made.append(between(sides, "itself", seeded, bar=bar, burn_us=burn_us))
            print(f"{number + 1}: {_result(made[-1])}", flush=True)
    return made


def trials_told(made: Sequence[Comparison]) -> str:
    """How the trials ended, and how far from 1 the ratios were."""
    ends = Counter(each.exit_code for each in made)
    plain = sum(row.verdict.p_holm <= each.bar.alpha for each in made for row in each.rows)
    rows = sum(len(each.rows) for each in made)
    off = sorted(abs(row.verdict.ratio - 1) for each in made for row in each.rows)
    return (
        f"of {len(made)} runs {ends[REGRESSION]} told a regression, {ends[NOT_MEASURED]} could not "
        f"measure; {plain} of {rows} rows were significant without the threshold; a ratio was off "
        f"1 by {median(off):.1%} in the median, {off[-1]:.1%} at most"
    )


def main() -> int:
    """Compare, print, and say it by the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", nargs="?", help="revision that this tree is compared with")
    parser.add_argument("--pairs", type=int, help="of processes, launched one after the other")
    parser.add_argument("--rounds", type=int, help="of each pair")
    parser.add_argument("--requests", type=int, help="of each round, case and side")
    parser.add_argument("--quick", action="store_true", help="about a minute; for a first look")
    parser.add_argument("--alpha", type=float, default=Bar().alpha, help="for all cases together")
    parser.add_argument(
        "--threshold", type=float, default=Bar().threshold, help="what a regression exceeds"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--slow-us", type=float, default=0.0, help="let head burn so much: a trial")
    parser.add_argument("--trials", type=int, help="compare this tree with itself, so many times")
    options = parser.parse_args()
    if (options.base is None) == (options.trials is None):
        parser.error("say which revision to compare with, or --trials N")
    given = {name: getattr(options, name) for name in ("pairs", "rounds", "requests")}
    plan = replace(
        QUICK if options.quick else Plan(),
        seed=options.seed,
        loop=options.loop,
        **{name: value for name, value in given.items() if value is not None},
    )
    bar = Bar(alpha=options.alpha, threshold=options.threshold)
    try:
        if options.trials is not None:
            made = trials(plan, count=options.trials, bar=bar, burn_us=options.slow_us)
            write_json(options.json, made)
            print(trials_told(made))
            return max(each.exit_code for each in made)
        comparison = run(options.base, plan, bar=bar, burn_us=options.slow_us)
    except CheckError as error:
        print(f"NOT MEASURED: {error}")
        return NOT_MEASURED
    write_json(options.json, [comparison])
    print(table(comparison))
    return comparison.exit_code


if __name__ == "__main__":
    sys.exit(main())

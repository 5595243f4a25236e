"""The regression gate: its two sides, what it says, and how it ends."""

import asyncio
import io
import json
import subprocess
from dataclasses import replace
from functools import partial

import pytest

from benchmarks import compare, compare_worker
from benchmarks.compare import NO_REGRESSION, NOT_MEASURED, REGRESSION, Compared, Comparison, Plan
from benchmarks.compare_worker import CASES, CONTROL, serve
from benchmarks.runner import CheckError
from benchmarks.significance import Bar, Verdict, verdicts

SAME = Verdict(ratio=1.0, low=0.99, high=1.01, p=0.9, p_holm=0.9, outcome="same")
SLOWER = Verdict(ratio=1.2, low=1.1, high=1.3, p=0.002, p_holm=0.01, outcome="slower")


def compared(name, verdict):
    return Compared(name=name, base_us=10.0, head_us=10.0 * verdict.ratio, verdict=verdict)


def comparison(*rows, control=SAME, pairs=10):
    return Comparison(
        base="v1",
        plan=Plan(pairs=pairs),
        bar=Bar(),
        python="3",
        control=compared(CONTROL, control),
        rows=tuple(compared(f"case {n}", row) for n, row in enumerate(rows)),
        missing={"new": "base: no such setting"},
    )


class TestResult:
    @pytest.mark.parametrize(
        ("made", "code", "said"),
        [
            pytest.param(comparison(SAME, SAME), NO_REGRESSION, "no regression", id="same"),
            pytest.param(
                comparison(SAME, SLOWER), REGRESSION, "REGRESSION: case 1: significant at 0.05",
                id="slower",
            ),
            pytest.param(
                comparison(SLOWER, control=SLOWER), NOT_MEASURED, "even the bare app",
                id="the control differs",
            ),
            pytest.param(comparison(), NOT_MEASURED, "no case runs on both", id="no case"),
            pytest.param(
                comparison(SAME, pairs=5), NOT_MEASURED, "fewer than 6 pairs", id="too few pairs"
            ),
        ],
    )  # fmt: skip
    def test_the_exit_code_and_the_words_agree(self, made, code, said):
        assert made.exit_code == code
        text = compare.table(made)
        assert said in text
        assert "new: no row, base: no such setting" in text
        assert all(f"| {row.name} | 10.00 |" in text for row in made.rows)

    def test_trials_are_summed_up(self):
        made = [comparison(SAME, SAME), comparison(SAME, SLOWER), comparison(SAME, control=SLOWER)]
        told = compare.trials_told(made)
        assert "of 3 runs 1 told a regression, 1 could not measure; 1 of 5 rows" in told
        assert "20.0% at most" in told

    def test_an_unknown_revision_is_told_and_is_no_regression(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.argv", ["compare", "no-such-revision"])
        assert compare.main() == NOT_MEASURED
        assert "no worktree of 'no-such-revision'" in capsys.readouterr().out

    def test_a_plan_without_a_request_for_each_side_is_refused(self):
        with pytest.raises(ValueError, match="at least one pair"):
            Plan(requests=1)


class TestSides:
    @pytest.fixture
    def repository(self, tmp_path, monkeypatch):
        """Two revisions: in the first, `perf_middleware` says 1."""
        root = tmp_path / "repository"
        (root / "perf_middleware").mkdir(parents=True)
        (root / "benchmarks").mkdir()
        (root / "benchmarks" / "own.py").write_text("of the tree")
        git = partial(subprocess.run, check=True, capture_output=True, cwd=root)
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        git(["git", "init"])
        for text in ("1", "2"):
            (root / "perf_middleware" / "__init__.py").write_text(text)
            git(["git", "add", "perf_middleware"])
            git(["git", *who, "commit", "-m", text])
        monkeypatch.setattr(compare, "ROOT", root)
        return root

    def test_base_is_the_package_of_its_revision_with_the_benchmarks_of_this_tree(
        self, repository, tmp_path
    ):
        (repository / "perf_middleware" / "__init__.py").write_text("not committed")
        tree = tmp_path / "tree"
        with compare.worktree("HEAD~1", tree) as made:
            compare.lay_out(made, tmp_path / "base")
        compare.lay_out(repository, tmp_path / "head")
        assert (tmp_path / "base/perf_middleware/__init__.py").read_text() == "1"
        assert (tmp_path / "head/perf_middleware/__init__.py").read_text() == "not committed"
        assert (tmp_path / "base/benchmarks/own.py").read_text() == "of the tree"
        assert not tree.exists()
        listed = ["git", "worktree", "list"]
        told = subprocess.run(listed, cwd=repository, check=True, capture_output=True, text=True)
        assert len(told.stdout.splitlines()) == 1

    def test_a_revision_without_the_package_is_told(self, tmp_path):
        with pytest.raises(CheckError, match="no perf_middleware in that"):
            compare.lay_out(tmp_path, tmp_path / "side")


class TestWorker:
    """One side, in this process."""

    def told(self, cases, asked, *, burn_us=0.0):
        out = io.StringIO()
        asyncio.run(serve(cases, burn_us, io.StringIO(asked), out))
        return [json.loads(line) for line in out.getvalue().splitlines()]

    def test_what_does_not_build_or_answers_wrongly_is_missing_and_the_rest_is_there(self):
        def refuse():
            raise ValueError("no such setting")

        control, other = CASES[0], CASES[1]
        cases = (
            control,
            replace(other, name="refused", build=refuse),
            replace(other, name="bare", build=control.build),
        )
        (where,) = self.told(cases, "")
        assert where["cases"] == [CONTROL]
        assert where["missing"]["refused"] == "ValueError: no such setting"
        assert "answered without" in where["missing"]["bare"]

    def test_a_slowed_side_burns_that_much_but_not_in_the_control(self):
        # By turns of its own clock: no time is compared.
        control, other = replace(CASES[0]), replace(CASES[0], name="another")
        slowed = [
            asyncio.run(compare_worker.ready(case, 3.0)).__class__ for case in (control, other)
        ]
        assert [made is compare_worker.Slow for made in slowed] == [False, True]


class TestBetween:
    def test_two_sides_run_in_processes_of_their_own_and_each_case_has_a_value_of_each_pair(
        self, tmp_path, monkeypatch
    ):
        sides = tmp_path / "base", tmp_path / "head"
        for side in sides:
            compare.lay_out(compare.ROOT, side)
        values = {}

        def noting(log_ratios, bar):
            values.update(log_ratios)
            return verdicts(log_ratios, bar)

        monkeypatch.setattr(compare, "verdicts", noting)
        monkeypatch.setenv("PERFORMANCE_CACHE_ENABLED", "nonsense")  # no setting of a side
        plan = Plan(pairs=1, rounds=1, requests=4, loop="asyncio")

        made = compare.between(sides, "itself", plan, bar=Bar())

        assert made.missing == {}
        assert [row.name for row in made.rows] == [case.name for case in CASES[1:]]
        assert {name: len(of) for name, of in values.items()} == {case.name: 1 for case in CASES}
        assert all(row.base_us > 0 and row.head_us > 0 for row in (made.control, *made.rows))
        assert made.exit_code == NOT_MEASURED  # one pair finds nothing

    def test_a_side_that_does_not_start_is_told(self, tmp_path):
        side = tmp_path / "side"
        package = side / "perf_middleware"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('it is broken')")
        plan = Plan(loop="asyncio")
        with (
            compare.working(side, plan, hash_seed=1) as worker,
            pytest.raises(CheckError, match="a worker of side ended"),
        ):
            worker.ready()

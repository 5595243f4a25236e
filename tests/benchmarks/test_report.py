"""The report: what a run finds is written, read, and on the pages; a part that fails is told."""

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from benchmarks import pages, parts, plots, report, results
from benchmarks.figures import Spread, costs
from benchmarks.machine import cpu_model, this_machine
from benchmarks.pages import NOT_MEASURED, blocks_of, filled, pictures_of
from benchmarks.parts import FULL, SHORT, Part, all_parts, part_of
from benchmarks.report import COMMITTED, IMAGES, PAGES, measured, publish
from benchmarks.response_cache import Line, Table, markdown
from benchmarks.results import Run
from benchmarks.runner import CheckError, Plan, Report
from benchmarks.tables import colour, report_table

if TYPE_CHECKING:
    from benchmarks.runner import LoopName

ROOT = Path(__file__).parents[2]
ROUNDS = {"bare app": [50.0] * 2, "install: everything": [58.0] * 2, "peer": [82.0] * 2}
FOUND = Report(
    title="a route", baseline="bare app", peer="peer", rounds=2, requests=10, loop="asyncio",
    python="3.11.7", costs=costs(ROUNDS, baseline="bare app", peer="peer"),
)  # fmt: skip


def part(name="one", run=lambda form: [FOUND], **fields):
    values = {"kind": Report, "markdown": lambda found: "\n\n".join(map(report_table, found))}
    return Part(name=name, run=run, **{**values, **fields})


def run_of(**found):
    return Run(form="short", machine=this_machine(), found=found, seconds=dict.fromkeys(found, 1.0))


@pytest.fixture(scope="module")
def run():
    return results.read(ROOT / COMMITTED, all_parts())


class TestCommitted:
    """The pages as they are in the repository, beside docs/performance.json."""

    @pytest.mark.parametrize("page", PAGES)
    def test_a_page_has_the_figures_of_the_run(self, run, page):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert filled(text, blocks_of(run, all_parts())) == text

    def test_the_pictures_are_those_of_the_run(self, run):
        pictures = pictures_of(run, all_parts())
        assert len(pictures) >= 4
        for name, picture in pictures.items():
            assert (ROOT / IMAGES / name).read_text(encoding="utf-8") == picture
            ET.fromstring(picture)

    def test_every_part_has_its_place_on_the_page(self):
        text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
        places = {match[2] for match in pages.MARKED.finditer(text)}
        assert places == {"machine", *(part.name for part in parts.PARTS), *parts.OTHERS}

    def test_what_is_written_is_what_was_read(self, run, tmp_path):
        results.write(run, tmp_path / "again.json")
        assert results.read(tmp_path / "again.json", all_parts()) == run
        assert {part.name for part in parts.PARTS} <= set(run.found)


class TestPages:
    PAGE = (
        "before\n<!-- bench:one -->\nold\n<!-- /bench:one -->\n<!-- bench:x -->\n<!-- /bench:x -->"
    )

    def test_only_what_is_between_the_marks_is_written(self):
        expected = (
            "before\n<!-- bench:one -->\n\nnew\n\n<!-- /bench:one -->\n"
            f"<!-- bench:x -->\n\n{NOT_MEASURED}\n\n<!-- /bench:x -->"
        )
        assert filled(self.PAGE, {"one": "new", "two": "elsewhere"}) == expected
        assert filled(expected, {"one": "new"}) == expected

    def test_the_first_columns_say_what_a_row_took_and_added(self):
        rows = report_table(FOUND).splitlines()
        assert "| bare app | 50.0 |  | 50.0 .. 50.0 |  |  |" in rows
        assert "| install: everything | 58.0 | 8.00 | 8.00 .. 8.00 | 1.16 | 0.25 |" in rows

    def test_a_picture_is_shown_below_its_table(self):
        shown = part(picture=lambda found: plots.bars("title", [], unit="us"))
        block = blocks_of(run_of(one=[FOUND]), [shown])["one"]
        assert block.endswith("![one](images/performance-one.svg)")

    def test_a_part_that_was_not_run_has_neither(self):
        run = run_of(one=[])
        asked = [part(picture=lambda found: "never"), part("two", picture=lambda found: "never")]
        assert {"one", "two"}.isdisjoint(blocks_of(run, asked))
        assert pictures_of(run, asked) == {}

    def test_the_readme_has_ours_and_every_peer_of_the_stacks(self):
        names = ["bare app", "install: defaults", "install: everything", "pass-through layer",
                 "hand-written minimum of everything", "prometheus-fastapi-instrumentator",
                 "another 1.0"]  # fmt: skip
        rounds = {name: [10.0 + place, 10.0 + place] for place, name in enumerate(names)}
        peer = "prometheus-fastapi-instrumentator"
        stacks = replace(FOUND, costs=costs(rounds, baseline="bare app", peer=peer))
        block = pages.readme_block(run_of(stacks=[stacks]))
        assert "| **`install`, everything on** | 2.00 | 0.20 | 0.40 |" in block
        assert "| another 1.0 | 6.00 | 0.60 | 1.20 |" in block
        assert "pass-through" not in block

    def test_the_readme_has_the_hits_in_all(self):
        around = Spread(1.0, 2.0, 3.0)
        lines = tuple(
            Line(
                name=name, hit=True, peer=False, request_us=around, added_us=around,
                of_bare=0.125, of_minimum=1.0, of_ours=1.0,
            )
            for name in ("bare app", "install: everything: hit, stored gzip")
        )  # fmt: skip
        table = Table(title="t", rounds=1, requests=1, loop="uvloop", lines=lines)
        block = pages.readme_block(run_of(hit=[table]))
        assert "| **`install`, everything on: a hit** | 2.00 | 0.12 | 1.00 |" in block
        assert "| bare app | 2.00 |" in markdown(table)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("install: everything", plots.GREEN),
            ("install: all off", plots.GREY),
            ("hand-written minimum of everything", plots.GREY),
            ("cashews 7.6.0, decorator", plots.ORANGE),
        ],
    )
    def test_a_bar_tells_by_its_colour_whose_it_is(self, name, expected):
        assert colour(name) == expected


class TestRun:
    def test_each_part_is_run_and_written_as_it_comes(self, tmp_path, capsys):
        asked = [part("one"), part("two")]
        forms = []

        def run_one(name, form):
            forms.append((name, form))
            return [FOUND]

        run, failed = measured(asked, SHORT, tmp_path / "new", run_one=run_one)

        assert failed == []
        assert forms == [("one", SHORT), ("two", SHORT)]
        assert list(run.found) == list(run.seconds) == ["one", "two"]
        read = results.read(tmp_path / "new" / "results.json", asked)
        assert read.found["one"] == [FOUND]
        assert read.machine == run.machine
        assert "## two" in capsys.readouterr().out

    def test_a_part_that_fails_ends_none_of_the_others_and_nothing_is_published(
        self, tmp_path, monkeypatch, capsys
    ):
        def run_one(name, form):
            if name == "bad":
                raise CheckError("a row answered 404")
            return [FOUND]

        asked = [part("bad"), part("good")]
        monkeypatch.setattr(report, "all_parts", lambda: asked)
        monkeypatch.setattr(report, "run_apart", run_one)
        monkeypatch.setattr(report, "publish", lambda *_: pytest.fail("published"))

        assert report.main(["--publish", "--out", str(tmp_path)]) == 1

        told = capsys.readouterr().out
        assert "a row answered 404" in told
        assert told.endswith("failed, and nothing published: bad\n")
        written = json.loads((tmp_path / "results.json").read_text())
        assert list(written["parts"]) == ["good"]

    def test_some_parts_only_are_not_published(self, monkeypatch, capsys):
        with pytest.raises(SystemExit):
            report.main(["--only", "hit", "--publish"])
        assert "would not be of one run" in capsys.readouterr().err

    def test_fewer_rounds_are_fewer_in_every_part(self, tmp_path, monkeypatch):
        forms = []
        monkeypatch.setattr(report, "all_parts", lambda: [part("one")])
        monkeypatch.setattr(report, "run_apart", lambda name, form: forms.append(form) or [FOUND])
        assert report.main(["--full", "--rounds", "2", "--out", str(tmp_path)]) == 0
        (form,) = forms
        assert (form.name, form.rounds, form.other_rounds, form.evictions.rounds) == (
            "cut",
            2,
            2,
            2,
        )
        assert form.evictions.keys == FULL.evictions.keys

    @pytest.mark.parametrize(
        ("arguments", "names"),
        [
            ([], ["stacks"]),
            (["--full"], ["stacks", "growth"]),
            (["--only", "growth"], ["growth"]),
            (["--full", "--only", "stacks"], ["stacks"]),
        ],
    )
    def test_the_short_form_leaves_out_what_takes_long_and_is_not_asked_for(
        self, arguments, names, tmp_path, monkeypatch
    ):
        ran = []
        monkeypatch.setattr(report, "all_parts", lambda: [part("stacks"), part("growth")])
        monkeypatch.setattr(report, "run_apart", lambda name, form: ran.append(name) or [FOUND])
        assert report.main([*arguments, "--out", str(tmp_path)]) == 0
        assert ran == names

    def test_publishing_writes_the_pages_the_pictures_and_the_results(self, tmp_path, monkeypatch):
        (tmp_path / "docs" / "images").mkdir(parents=True)
        for page in PAGES:
            (tmp_path / page).write_text("<!-- bench:one -->\n<!-- /bench:one -->\n")
        shown = part(picture=lambda found: plots.bars("title", [], unit="us"))
        results.write(run_of(one=[FOUND]), tmp_path / "results.json")

        publish(tmp_path / "results.json", [shown], tmp_path)
        publish(tmp_path / COMMITTED, [shown], tmp_path)  # --from: the same once more

        assert "| install: everything | 58.0 | 8.00 |" in (tmp_path / PAGES[1]).read_text()
        assert (tmp_path / "docs" / "images" / "performance-one.svg").exists()
        assert results.read(tmp_path / COMMITTED, [shown]).found == {"one": [FOUND]}

    def test_a_part_runs_in_another_process(self):
        with pytest.raises(ValueError, match="not enough values"):
            report.run_apart("no such part", SHORT)

    def test_a_real_part_runs_from_form_to_page(self):
        (rate,) = [one for one in parts.PARTS if one.name == "rate-limit"]
        form = replace(SHORT, rounds=1)
        found = rate.run(replace(form, seconds_max=0.01))
        assert "| no rate limit |" in rate.markdown(found)
        assert {one.rounds for one in found} == {1}


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherReport:
    rounds: int
    loop: "LoopName" = "asyncio"


class TestOthers:
    """Parts that are modules by themselves: over servers, and with more of everything."""

    @staticmethod
    def module(**fields):
        def run(plan):
            return OtherReport(rounds=plan.rounds)

        def markdown(made: OtherReport) -> str:
            return f"{made.rounds} rounds"

        return SimpleNamespace(Plan=Plan, run=run, markdown=markdown, **fields)

    def test_it_gets_its_own_plan_and_no_more_rounds_than_the_form_has(self):
        made = part_of("served", self.module())
        assert made.run(SHORT) == [OtherReport(rounds=3)]
        assert made.run(FULL) == [OtherReport(rounds=300)]
        assert made.kind is OtherReport
        assert made.markdown(made.run(SHORT)) == "3 rounds"
        assert made.picture is None

    def test_its_short_form_is_its_own_where_it_has_one(self):
        quick = Plan(rounds=2, seconds_max=99.0)
        module = self.module(QUICK=quick)
        plans = []
        module.run = lambda plan: plans.append(plan) or [OtherReport(rounds=plan.rounds)]
        part_of("growth", module).run(SHORT)
        part_of("growth", module).run(FULL)
        assert [plan.rounds for plan in plans] == [2, 300]
        assert plans[0].seconds_max == SHORT.seconds_max

    def test_its_results_are_read_as_what_it_shows(self, tmp_path):
        made = part_of("served", self.module())
        results.write(run_of(served=[OtherReport(rounds=3)]), tmp_path / "run.json")
        read = results.read(tmp_path / "run.json", [made])
        assert read.found["served"] == [OtherReport(rounds=3)]


class TestMachine:
    def test_it_says_what_the_figures_depend_on(self):
        machine = this_machine()
        assert machine.cores >= 1
        assert {"fastapi", "starlette", "perf-middleware"} <= set(machine.versions)
        assert machine.python.endswith(".".join(map(str, __import__("sys").version_info[:3])))
        for told in (machine.cpu, machine.date, machine.revision):
            assert told

    def test_the_processor_is_named_as_it_names_itself(self, tmp_path):
        info = tmp_path / "cpuinfo"
        info.write_text("processor\t: 0\nmodel name\t: A Fine Processor @ 2 GHz\nmodel name\t: B\n")
        assert cpu_model(info) == "A Fine Processor @ 2 GHz"
        assert cpu_model(tmp_path / "none")


class TestPlots:
    def test_bars_are_as_long_as_their_values_and_names_are_escaped(self):
        rows = [
            plots.Bar(name="a < b", value=10.0, quartiles=Spread(9.0, 10.0, 20.0)),
            plots.Bar(name="half", value=5.0),
            plots.Bar(name="below zero", value=-5.0, quartiles=Spread(-6.0, -5.0, -4.0)),
        ]
        root = ET.fromstring(plots.bars("title", rows, unit="us"))
        assert "a < b" in [text.text for text in root.iter() if text.tag.endswith("text")]
        widths = [float(bar.get("width")) for bar in root.findall("{*}rect")[1:]]
        assert widths == [plots.BARS / 2, plots.BARS / 4, 0.0]  # the whisker is what is longest

    def test_a_line_may_hold_its_value_and_leaves_out_what_is_no_number(self):
        axis = plots.even_axis(10.0)
        points = [(0.0, 1.0), (5.0, float("nan")), (10.0, 2.0)]
        lines = [
            plots.Line(name="held", points=points, colour=plots.BLUE, holds=True),
            plots.Line(name="drawn", points=points, colour=plots.ORANGE),
            plots.Line(name="empty", points=[], colour=plots.GREY, dashed=True),
        ]
        panel = plots.Panel(title="p", x=plots.seconds_axis(10, 5), y=axis, lines=lines)
        root = ET.fromstring(plots.picture("t", [panel]))
        held, drawn = root.findall('.//{*}g/{*}path[@stroke-width="1.5"]')
        assert "H" in held.get("d")
        assert "L" in drawn.get("d")
        assert drawn.get("d").count("L") == 1

    @pytest.mark.parametrize(
        ("high", "names"),
        [
            (10.0, ["0", "2", "4", "6", "8", "10"]),
            (0.3, ["0", "0.1", "0.2", "0.3"]),
            (0.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
            (123.0, ["0", "25", "50", "75", "100"]),
        ],
    )
    def test_an_axis_has_a_few_round_numbers(self, high, names):
        assert [name for _, name in plots.even_axis(high).ticks] == names

    @pytest.mark.parametrize(
        ("value", "share"),
        [(0.01, 0.0), (0.1, 0.5), (1.0, 1.0), (0.0001, 0.0), (50.0, 1.0)],
    )
    def test_a_logarithmic_axis_has_even_steps_for_equal_factors(self, value, share):
        axis = plots.Axis(low=0.01, high=1.0, ticks=[], logarithmic=True)
        assert axis.share(value) == pytest.approx(share)

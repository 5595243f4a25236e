"""The simulator of limits: its queues behave as theory says, its page is what it prints."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random

import pytest

from benchmarks.concurrency_simulator import compared, main, plotted, scenario_named, told
from benchmarks.simulated_requests import (
    MS,
    Phase,
    Scenario,
    exponential_us,
    fixed_us,
    lognormal_us,
    mix_us,
    simulated,
)
from perf_middleware.limits.concurrency.estimate import Fixed

PAGE = Path(__file__).parents[2] / "docs" / "concurrency.md"
UNLIMITED = Fixed(limit=100_000)


def scenario(*phases, work=None, **fields):
    return Scenario(
        **{
            "name": "a scenario",
            "phases": phases,
            "work": work or exponential_us(10 * MS),
            "unloaded_us": 10 * MS,
            "limits": (1,),
            "seconds": 200,
            **fields,
        }
    )


def mean_ms(run):
    return sum(latency for _, latency, _ in run.answered) / len(run.answered) / MS


@pytest.mark.parametrize(
    ("phase", "mean"),
    [
        pytest.param(Phase(rate_per_s=50, servers=1), 20.0, id="M/M/1: 1 / (mu - lambda)"),
        pytest.param(Phase(rate_per_s=50, cores=1), 20.0, id="M/M/1, processor sharing: the same"),
        pytest.param(Phase(rate_per_s=100, servers=2), 13.33, id="M/M/2: Erlang C"),
        pytest.param(Phase(rate_per_s=500), 10.0, id="M/M/inf: nobody waits"),
        pytest.param(Phase(rate_per_s=50, speed=0.5), 20.0, id="at half the speed"),
    ],
)
def test_a_queue_takes_as_long_as_theory_says(phase, mean):
    assert mean_ms(simulated(scenario(phase), UNLIMITED)) == pytest.approx(mean, rel=0.06)


def test_shared_cores_slow_everyone_alike():
    shared = scenario(Phase(rate_per_s=10_000, cores=1), work=fixed_us(MS), seconds=5)
    run = simulated(shared, Fixed(limit=4))
    assert run.in_flight_max == 4
    assert mean_ms(run) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    ("work", "mean"),
    [(exponential_us(50), 50), (lognormal_us(50, 1.0), 50), (fixed_us(50), 50),
     (mix_us((0.9, fixed_us(10)), (0.1, fixed_us(410))), 50)],
)  # fmt: skip
def test_work_has_its_mean(work, mean):
    rng = Random(7)
    assert sum(work(rng) for _ in range(40_000)) / 40_000 == pytest.approx(mean, rel=0.03)


def test_every_request_has_an_end():
    overload = scenario(Phase(rate_per_s=400, servers=2), seconds=20)
    run = simulated(overload, Fixed(limit=3))
    left = run.arrived - len(run.answered) - run.shed
    assert 0 <= left <= 3 + overload.waiting_max
    assert run.in_flight_max == 3
    waited = [whole - latency for _, latency, whole in run.answered]
    assert max(waited) <= overload.patience_us + 1


def test_a_backend_that_refuses_has_never_more():
    run = simulated(scenario(Phase(rate_per_s=2_000, refuse_above=5), seconds=10), UNLIMITED)
    assert run.in_flight_max == 5
    assert run.refused > 1_000


def test_a_run_is_the_same_again_and_another_with_another_seed():
    one = replace(scenario_named("holds the loop"), seconds=5)
    assert simulated(one, UNLIMITED) == simulated(one, UNLIMITED)
    assert simulated(one, UNLIMITED) != simulated(replace(one, seed=2), UNLIMITED)


@pytest.mark.parametrize("name", ["threads and GIL", "holds the loop"])
def test_the_page_has_the_rows_that_are_printed(name):
    rows = told(compared(scenario_named(name)))
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")


def test_the_plot_is_well_formed_and_has_a_line_for_each():
    comparison = compared(replace(scenario_named("holds the loop"), name="a < b", seconds=12))
    root = ET.fromstring(plotted([comparison]))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"gradient", "aimd", "a < b"} <= set(texts)
    assert inf not in [limit for _, limit in comparison.runs["gradient"].limits]


def test_it_prints_a_table_and_writes_a_plot(capsys, tmp_path):
    main(["--scenario", "holds the loop", "--svg", str(tmp_path / "plot.svg")])
    assert capsys.readouterr().out.count("\n") == 5
    assert ET.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")

"""The kernel's texts as numbers, also where they are of another form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.proc_texts import (
    Statm,
    count,
    counts,
    pressure,
    sizes,
    statm,
    whole,
)
from perf_middleware.memory_watch.reading import Pressure, Stalls


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("12\n", 12, id="a number"),
        pytest.param("9223372036854771712", 9223372036854771712, id="what v1 calls no limit"),
        pytest.param("max\n", None, id="a word"),
        pytest.param("-1", None, id="below zero"),
        pytest.param("", None, id="nothing"),
        pytest.param("١٢", None, id="digits of another script"),
        pytest.param("9" * 5_000, None, id="more digits than int() takes"),
    ],
)
def test_a_whole_number_or_nothing(text, number):
    assert whole(text) == number


def test_statm_counts_in_pages():
    told = statm("765 446 418 5 0 123 0\n", page_bytes=4096)
    assert told == Statm(765 * 4096, 446 * 4096, 123 * 4096)
    assert statm("765 446 418 5 0\n", page_bytes=4096) is None


def test_sizes_are_bytes():
    text = (
        "MemTotal:       24731708 kB\nMemFree: 1 kB\nHugePages_Total:   3\nVmSwap:\t       0 kB\n"
    )
    names = frozenset({"MemTotal", "VmSwap", "Absent"})
    assert sizes(text, names) == {"MemTotal": 24731708 * 1024, "VmSwap": 0}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("inactive_file 7\nanon 1\n", 7, id="the first line"),
        pytest.param("anon 1\ninactive_file 7", 7, id="the last, without an end"),
        pytest.param("total_inactive_file 9\nanon 1\n", None, id="a name that ends alike"),
        pytest.param("anon 1\ninactive_file x\n", None, id="no number"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_one_line_of_many(text, number):
    assert count(text, "inactive_file") == number


@given(st.text())
def test_one_line_is_what_all_lines_say(text):
    text = f"a 1\n{text}\ninactive_file 7\n"
    first = next(line for line in text.split("\n") if line.startswith("inactive_file "))
    assert count(text, "inactive_file") == whole(first.partition(" ")[2])


PSI = (
    "some avg10=12.50 avg60=1.00 avg300=0.00 total=667\n"
    "full avg10=0.00 avg60=0.25 avg300=0.00 total=510\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            PSI,
            Pressure(
                where="/app",
                some=Stalls(total_us=667, share_10s=0.125, share_60s=0.01),
                full=Stalls(total_us=510, share_10s=0.0, share_60s=0.0025),
            ),
            id="both kinds",
        ),
        pytest.param(
            PSI.splitlines()[0],
            Pressure(where="/app", some=Stalls(total_us=667, share_10s=0.125, share_60s=0.01)),
            id="one kind",
        ),
        pytest.param("some avg10=nan avg60=0.00 total=1", None, id="no number"),
        pytest.param("some avg10=900.00 avg60=0.00 total=1", None, id="more than all the time"),
        pytest.param("", None, id="not measured"),
    ],
)
def test_pressure_is_shares_and_microseconds(text, told):
    assert pressure(text, where="/app") == told


@given(st.one_of(st.text(), st.lists(st.sampled_from(
    ["some", "full", " ", "\n", "avg10=", "avg60=", "total=", "=", "0.00", "7", ".", ":", "kB",
     "Pss"]
), max_size=30).map("".join)))  # fmt: skip
def test_any_text_is_figures_or_nothing(text):
    told = statm(text, page_bytes=4096)
    assert told is None or min(told.virtual_bytes, told.rss_bytes, told.data_bytes) >= 0
    assert all(size >= 0 for size in sizes(text, frozenset({"Pss", "some"})).values())
    assert all(number >= 0 for number in counts(text).values())
    stalls = pressure(text, where="")
    assert stalls is None or 0 <= stalls.some.share_10s <= 1

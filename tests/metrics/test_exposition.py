"""The page reads back as what went in, in both formats, whatever the figures and labels hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.utils import floatToGoString

from perf_middleware.families import (
    NO_LABELS,
    Distribution,
    Exemplar,
    Family,
    LabelSet,
    Value,
    counter,
    cut_label_value,
    gauge,
)
from perf_middleware.metrics.exposition.page import CHUNK_LINES_MAX, CONTENT_TYPES, render
from perf_middleware.metrics.exposition.textformat import bound_text, number_text

FORMATS = ("text", "openmetrics")


def page(families, format, **options):
    return b"".join(render(families, format, **options)).decode()


def parsed(families, format):
    text = page(families, format)
    parse = parse_openmetrics if format == "openmetrics" else parse_text
    return list(parse(text))


def samples_of(metrics):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def histogram(name, bounds, points, **more):
    return Family(name=name, kind="histogram", help="h", bounds=bounds, points=points, **more)


def readable(value):
    """What a label is after its way through a LabelSet: cut, and encodable."""
    return cut_label_value(value).encode("utf-8", "replace").decode()


# Any text, with what breaks naive escaping much more often than chance would have it.
label_values = st.one_of(
    st.text(alphabet=st.characters(), max_size=30),
    st.text(alphabet='\\"\n\r\x00 {},=#abc\ud800\U0001f600', max_size=30),
    st.just("x" * 10_240),
    st.just("\ud83d" * 300),
)
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("le", "quantile", "__name__")
)
label_pairs = st.dictionaries(label_names, label_values, max_size=4).map(
    lambda labels: tuple(labels.items())
)
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(st.floats(), st.integers(-(10**40), 10**40))


def same(a, b):
    return a == b or (a != a and b != b)


@given(st.lists(st.tuples(label_pairs, numbers), max_size=8), st.sampled_from(FORMATS))
def test_gauges_read_back_as_they_went_in(rows, format):
    points = [Value(LabelSet(pairs), number) for pairs, number in dict(rows).items()]
    points = list({point.labels: point for point in points}.values())
    expected = {tuple(sorted(point.labels.pairs)): point.value for point in points}
    (metric,) = parsed([gauge("room_temperature", "Help.", points)], format)
    assert (metric.name, metric.type, metric.documentation) == (
        "room_temperature",
        "gauge",
        "Help.",
    )
    found = {tuple(sorted(s.labels.items())): s.value for s in metric.samples}
    assert found.keys() == expected.keys()
    assert all(same(found[key], float(value) if isinstance(found[key], float) else value)
               for key, value in expected.items())  # fmt: skip
    assert all(readable(value) == value for point in points for _, value in point.labels.pairs)


@given(label_pairs, st.one_of(finite.map(abs), st.integers(0, 2**70)), st.sampled_from(FORMATS))
def test_counters_get_their_suffix(pairs, number, format):
    (metric,) = parsed([counter("orders", "Help.", [Value(LabelSet(pairs), number)])], format)
    assert (metric.name, metric.type) == ("orders", "counter")
    (sample,) = metric.samples
    assert sample.name == "orders_total"
    assert sample.labels == dict(LabelSet(pairs).pairs)
    assert sample.value == number


bounds_lists = st.lists(
    st.floats(min_value=0, max_value=1e300, allow_nan=False), min_size=1, max_size=20, unique=True
).map(sorted)


@given(bounds_lists, label_pairs, st.data(), st.sampled_from(FORMATS))
def test_histograms_read_back_as_they_went_in(bounds, pairs, data, format):
    counts = data.draw(
        st.lists(st.integers(0, 10**12), min_size=len(bounds) + 1, max_size=len(bounds) + 1)
    )
    cumulative = [sum(counts[: index + 1]) for index in range(len(counts))]
    total = data.draw(finite.map(abs))
    at_ms = data.draw(st.integers(0, 4 * 10**12))
    exemplar = Exemplar("0af7651916cd43dd8448eb211c80319c", data.draw(finite), at_ms / 1000)
    point = Distribution(LabelSet(pairs), cumulative, total, {len(bounds): exemplar})
    (metric,) = parsed([histogram("wait_seconds", bounds, [point], unit="seconds")], format)
    assert (metric.name, metric.type) == ("wait_seconds", "histogram")
    buckets = [s for s in metric.samples if s.name == "wait_seconds_bucket"]
    assert [float(s.labels["le"]) for s in buckets] == [*bounds, math.inf]
    assert [s.value for s in buckets] == cumulative
    plain = {s.name: s for s in metric.samples if s.name != "wait_seconds_bucket"}
    assert plain["wait_seconds_count"].value == cumulative[-1]
    assert plain["wait_seconds_sum"].value == total
    assert plain["wait_seconds_sum"].labels == dict(LabelSet(pairs).pairs)
    if format == "openmetrics":
        assert metric.unit == "seconds"
        assert all(s.exemplar is None for s in buckets[:-1])
        found = buckets[-1].exemplar
        assert found.labels == {"trace_id": exemplar.trace_id}
        assert found.value == exemplar.value
        assert float(found.timestamp) == pytest.approx(exemplar.at_s, abs=0.001)
    else:
        assert all(s.exemplar is None for s in buckets)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Zs", "Zl", "Zp", "Cc"])))
def test_help_reads_back(help_text):
    (metric,) = parsed([gauge("a", help_text, [Value(NO_LABELS, 1)])], "openmetrics")
    assert metric.documentation == help_text


@pytest.mark.parametrize("format", FORMATS)
def test_help_of_several_lines_stays_one_line(format):
    text = page([gauge("a", 'one\ntwo \\ "three"', [Value(NO_LABELS, 1)])], format)
    quoted = r"\"three\"" if format == "openmetrics" else '"three"'
    assert text.splitlines()[0] == rf"# HELP a one\ntwo \\ {quoted}"


def test_text_names_a_counter_with_its_suffix_and_openmetrics_without():
    families = [counter("sent_bytes", "Sent.", [Value(NO_LABELS, 3)], unit="bytes")]
    assert page(families, "text") == (
        "# HELP sent_bytes_total Sent.\n# TYPE sent_bytes_total counter\nsent_bytes_total 3\n"
    )
    assert page(families, "openmetrics") == (
        "# HELP sent_bytes Sent.\n# TYPE sent_bytes counter\n# UNIT sent_bytes bytes\n"
        "sent_bytes_total 3\n# EOF\n"
    )


def test_a_page_without_families_is_valid():
    assert page([], "text") == ""
    assert page([], "openmetrics") == "# EOF\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-3, "-3"),
        (2**64, str(2**64)),
        (10**400, "+Inf"),
        pytest.param(-(10**5000), "-Inf", id="longer than str() takes"),
        (1.5, "1.5"),
        (1e21, "1e+21"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (True, "1.0"),
    ],
)
def test_every_number_has_a_text(value, text):
    assert number_text(value) == text


@given(st.floats(min_value=0, allow_nan=False))
def test_bounds_are_spelled_as_prometheus_client_does(bound):
    assert bound_text(bound) == floatToGoString(bound)
    assert float(bound_text(bound)) == bound


@pytest.mark.parametrize(
    ("bound", "text"), [(0.005, "0.005"), (5, "5.0"), (1e6, "1e+06"), (1234567.5, "1.2345675e+06")]
)
def test_bounds_have_one_canonical_spelling(bound, text):
    assert bound_text(bound) == text


def test_histograms_of_negative_values_have_no_sum():
    point = Distribution(NO_LABELS, [1, 2], -4.0)
    for format in FORMATS:  # noqa: A001
        assert "_sum" not in page([histogram("a", [-1.0], [point])], format)
    # A negative sum with positive bounds: 0.0.4 has no rule, OpenMetrics forbids it.
    assert "a_sum -4.0" in page([histogram("a", [1.0], [point])], "text")
    assert "_sum" not in page([histogram("a", [1.0], [point])], "openmetrics")


def test_an_exemplar_that_is_too_long_is_left_out():
    point = Distribution(NO_LABELS, [1, 1], 1.0, {0: Exemplar("f" * 121, 1.0, 2.0)})
    assert " # " not in page([histogram("a", [1.0], [point])], "openmetrics").replace("# ", "", 1)
    point = Distribution(NO_LABELS, [1, 1], 1.0, {0: Exemplar("f" * 120, 1.0, math.nan)})
    text = page([histogram("a", [1.0], [point])], "openmetrics")
    assert f' 1 # {{trace_id="{"f" * 120}"}} 1.0\n' in text


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("second", "clashes"),
    [
        (gauge("a", "x", [Value(NO_LABELS, 2)]), True),
        (gauge("a_total", "x", [Value(NO_LABELS, 2)]), True),
        (gauge("a_count", "x", [Value(NO_LABELS, 2)]), False),
        (counter("a_total_time", "x", [Value(NO_LABELS, 2)]), False),
    ],
)
def test_of_two_families_that_claim_one_name_the_first_is_shown(format, second, clashes):
    first = counter("a", "x", [Value(NO_LABELS, 1)])
    dropped = []
    text = page([first, second], format, on_dropped=lambda *what: dropped.append(what))
    assert "a_total 1\n" in text
    assert dropped == ([(second.name, "clash", None)] if clashes else [])
    assert (f"{second.name} 2\n" in text) is (not clashes and second.kind == "gauge")
    if format == "openmetrics":
        list(parse_openmetrics(text))


@pytest.mark.parametrize("format", FORMATS)
def test_a_family_that_fails_ends_there_and_the_page_stays_readable(format):
    def points():
        for index in range(CHUNK_LINES_MAX):
            yield Value(LabelSet([("i", str(index))]), index)
        raise RuntimeError("dictionary changed size during iteration")

    dropped = []
    families = [
        gauge("bad", "x", points()),
        gauge("wrong", "x", [Distribution(NO_LABELS, [1], 1.0)]),
        histogram("short", [1.0, 2.0], [Distribution(NO_LABELS, [1], 1.0)]),
        gauge("good", "x", [Value(NO_LABELS, 1)]),
    ]
    text = page(families, format, on_dropped=lambda name, why, exc: dropped.append((name, why)))
    assert dropped == [("bad", "failed"), ("wrong", "failed"), ("short", "failed")]
    parse = parse_openmetrics if format == "openmetrics" else parse_text
    assert samples_of(parse(text))[("good", ())] == 1


@pytest.mark.parametrize("format", FORMATS)
def test_chunks_are_bounded_and_never_split_a_histogram_point(format):
    bounds = [float(b) for b in range(1, 61)]
    families = [
        gauge("g", "x", (Value(LabelSet([("i", str(i))]), i) for i in range(1_050))),
        histogram(
            "h",
            bounds,
            (Distribution(LabelSet([("i", str(i))]), [1] * 61, 1.0) for i in range(50)),
        ),
    ]
    chunks = list(render(families, format))
    assert len(chunks) > 15
    for chunk in chunks:
        lines = chunk.decode().splitlines()
        assert len(lines) <= CHUNK_LINES_MAX
        points = [line for line in lines if line.startswith("h_")]
        assert len(points) % 63 == 0
    text = b"".join(chunks).decode()
    assert text.count("\n") == 1_050 + 50 * 63 + 4 + (format == "openmetrics")


def test_families_are_read_lazily():
    read = []

    def points(name):
        read.append(name)
        yield from (Value(LabelSet([("i", str(i))]), i) for i in range(1_000))

    chunks = render([gauge("a", "x", points("a")), gauge("b", "x", points("b"))], "text")
    next(chunks)
    assert read == ["a"]


def test_content_types_name_the_version():
    assert CONTENT_TYPES["text"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"version=1.0.0" in CONTENT_TYPES["openmetrics"]

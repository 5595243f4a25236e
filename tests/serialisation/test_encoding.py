"""encode(): what is JSON for the standard library is the same JSON here, and more besides."""

import collections
import dataclasses
import enum
import json
import math
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from perf_middleware.serialisation.encoding import encode


class Colour(enum.Enum):
    RED = "red"


class Level(enum.StrEnum):
    HIGH = "high"


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Item(BaseModel):
    name: str
    price: Decimal
    owner_id: int | None = Field(default=None, serialization_alias="ownerId")
    weight: float = 1.0


class Pair(NamedTuple):
    left: int
    right: list[int]


class Share(float):
    pass


class Label(str):
    __slots__ = ()


class Unknown:
    pass


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


# Integers of 64 bits, and no lone surrogate: what all readers of JSON take (RFC 8259 §6, §8.2).
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
KEYS = st.text(st.characters(codec="utf-8")) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS | st.none(), inner)
    ),
    max_leaves=30,
)


@given(PLAIN)
def test_plain_values_are_the_json_that_the_standard_library_writes(value):
    assert json.loads(encode(value)) == json.loads(json.dumps(value))


@given(st.text(st.characters(codec="utf-8")) | st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_text_and_integers_are_the_same_bytes_as_starlettes(value):
    as_starlette = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert encode(value) == as_starlette


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(datetime(2026, 5, 1, 12, tzinfo=UTC), '"2026-05-01T12:00:00+00:00"', id="UTC"),
        pytest.param(
            datetime(2026, 5, 1, 12, 0, 0, 5),  # noqa: DTZ001
            '"2026-05-01T12:00:00.000005"',
            id="naive",
        ),
        pytest.param(date(2026, 5, 1), '"2026-05-01"', id="date"),
        pytest.param(timedelta(days=1, seconds=2), '"P1DT2S"', id="timedelta"),
        pytest.param(uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"', id="UUID"),
        pytest.param(Colour.RED, '"red"', id="enum"),
        pytest.param(Level.HIGH, '"high"', id="string enum"),
        pytest.param(Point(1, 2.5), '{"x":1,"y":2.5}', id="dataclass"),
        pytest.param(Decimal("1.10"), '"1.10"', id="Decimal keeps its digits"),
        pytest.param({5}, "[5]", id="set"),
        pytest.param(frozenset({5}), "[5]", id="frozenset"),
        pytest.param(collections.deque([1, 2]), "[1,2]", id="deque"),
        pytest.param(Pair(1, [2]), "[1,[2]]", id="named tuple"),
        pytest.param(b"caf\xc3\xa9", '"café"', id="bytes that are UTF-8"),
        pytest.param(Path("a"), '"a"', id="path"),
        pytest.param(ip_address("::1"), '"::1"', id="IP address"),
        pytest.param(Share(0.5), "0.5", id="subclass of float"),
        pytest.param({Label("a"): Label("b")}, '{"a":"b"}', id="subclass of str"),
        pytest.param(collections.OrderedDict(b=1, a=2), '{"b":1,"a":2}', id="order is kept"),
        pytest.param(
            [Item(name="x", price=Decimal("1.10"), owner_id=3)],
            '[{"name":"x","price":"1.10","ownerId":3,"weight":1.0}]',
            id="model by its aliases",
        ),
        pytest.param(Item(name="x", price=Decimal(1), weight=math.nan).weight, "null", id="nan"),
        pytest.param([math.inf, -math.inf], "[null,null]", id="infinities"),
        pytest.param({Share("nan")}, "[null]", id="nan in a set"),
        pytest.param(
            Item(name="x", price=Decimal(1), weight=math.inf),
            '{"name":"x","price":"1","ownerId":null,"weight":null}',
            id="infinity in a model",
        ),
        pytest.param(
            {1: "a", None: "b", False: "c"},
            '{"1":"a","null":"b","false":"c"}',
            id="keys of all kinds",
        ),
        pytest.param(
            {1.5: "a", Colour.RED: "b"}, '{"1.5":"a","red":"b"}', id="float, enum as keys"
        ),
        pytest.param(
            {uuid.UUID(int=1): {date(2026, 5, 1): 1}},
            '{"00000000-0000-0000-0000-000000000001":{"2026-05-01":1}}',
            id="UUID and date as keys",
        ),
        pytest.param(2**64 - 1, "18446744073709551615", id="largest integer"),
    ],
)
def test_a_type_is_written_as_pydantic_writes_it(value, text):
    assert encode(value).decode() == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(Unknown(), "content (Unknown) cannot be JSON: ", id="alone"),
        pytest.param(
            {"items": [1, {"owner": Unknown()}]},
            "content['items'][1]['owner'] (Unknown)",
            id="deep",
        ),
        pytest.param(
            {"a": {2: [Unknown()]}}, "content['a'][2][0] (Unknown)", id="other keys above"
        ),
        pytest.param([{1, 2}, {Unknown()}], "content[1] (set)", id="in a set"),
        pytest.param(
            [2**64], "content[0] (int) cannot be JSON: Integer exceeds 64-bit", id="large"
        ),
        pytest.param(
            ["\ud800"], "content[0] (str) cannot be JSON: str is not valid", id="surrogate"
        ),
        pytest.param({"a": {(1, 2): 3}}, "content['a'] (dict) cannot be JSON: Dict key", id="key"),
        pytest.param([b"\xff"], "content[0] (bytes)", id="bytes that are no text"),
        pytest.param([(n for n in range(3))], "give StreamingJSONResponse that", id="generator"),
        pytest.param({"a": iter([1, 2]), 1: 2}, "read only once", id="an iterator, tried twice"),
        pytest.param([map(str, [1, 2]), {1: 2}], "read only once", id="a map, tried twice"),
        pytest.param([zip("ab", [1, 2], strict=True)], "read only once", id="a zip"),
        pytest.param({"a" * 1000: Unknown()}, "content['aaaa", id="long key"),
        pytest.param(nested(300), "cannot be JSON: Recursion limit reached", id="too deep"),
    ],
)
def test_what_cannot_be_json_is_named_by_its_place(value, said):
    with pytest.raises(TypeError) as caught:
        encode(value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_circle_ends_in_an_error():
    circle = {}
    circle["again"] = circle
    with pytest.raises(TypeError, match="Recursion limit") as caught:
        encode(circle)
    assert len(str(caught.value)) < 250


def test_an_array_type_that_orjson_does_not_know_is_written_as_its_list():
    class Array:
        def tolist(self):
            return [[1, 2], [3, 4]]

    assert encode({"a": Array()}) == b'{"a":[[1,2],[3,4]]}'

"""Sets of tables: names, unions, what may be the same, and the tags that say so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.database.tables.relations import Relations, closure
from perf_middleware.database.tables.touched import (
    ALL_TABLES,
    ANYTHING,
    NO_TABLES,
    AllTables,
    Table,
    Touched,
    overlap,
    read_tags,
    union,
    whole_tags,
    write_tags,
)

NAMES = st.sampled_from(["a", "b", "any", "*", "a@s", "a@", "a%40s", "A", "a@#1"])
ROWS = st.sampled_from([None, "1", "2"])
TABLES = st.builds(Table, NAMES, st.sampled_from([None, "s", "r", "", "s@", "s#1"]), ROWS)
SETS = st.one_of(st.just(ALL_TABLES), st.frozensets(TABLES, max_size=4))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(Table("a"), Table("a"), True, id="one name"),
        pytest.param(Table("a"), Table("b"), False, id="two names"),
        pytest.param(Table("Items"), Table("items"), True, id="case is no difference"),
        pytest.param(Table("a", "s"), Table("a", ""), True, id="an empty schema is none"),
        pytest.param(Table("a", "s"), Table("a"), True, id="no schema is any schema"),
        pytest.param(Table("a", "s"), Table("a", "r"), False, id="two schemas"),
        pytest.param(Table("a", None, "1"), Table("a", "s", "1"), True, id="one row"),
        pytest.param(Table("a", None, "1"), Table("a", None, "2"), False, id="two rows"),
        pytest.param(Table("a", None, "1"), Table("a"), True, id="a row and its table"),
        pytest.param(Table("a" * 63), Table("a" * 70), True, id="as PostgreSQL cuts them"),
    ],
)
def test_two_names_may_be_one_table(one, other, same):
    assert one.may_be(other) is same
    assert overlap(frozenset({one}), frozenset({other})) is same


@given(SETS, SETS)
def test_the_tags_of_a_read_and_a_write_meet_exactly_where_their_tables_may(reads, writes):
    meet = not read_tags(reads).isdisjoint(write_tags(writes))
    assert meet == overlap(reads, writes) == overlap(writes, reads)


@settings(max_examples=30)
@given(SETS.filter(lambda tables: tables != ALL_TABLES))
def test_tags_of_rows_can_be_made_those_of_their_tables(reads):
    assert whole_tags(read_tags(reads)) == read_tags({table.whole() for table in reads})


@given(SETS, SETS, SETS)
def test_a_union_overlaps_with_what_its_parts_do(one, other, third):
    together = union(one, other)
    assert overlap(together, third) == (overlap(one, third) or overlap(other, third))
    assert isinstance(together, AllTables) == (ALL_TABLES in (one, other))


def test_all_tables_is_one_value():
    assert AllTables() == ALL_TABLES
    assert {AllTables(), ALL_TABLES} == {ALL_TABLES}
    assert (ANYTHING | Touched()) == ANYTHING
    assert not overlap(NO_TABLES, ALL_TABLES)


A, B, C, D = (Table(name) for name in "abcd")


@given(
    start=st.frozensets(TABLES, max_size=3),
    edges=st.dictionaries(TABLES, st.frozensets(TABLES, max_size=3), max_size=6),
)
def test_a_closure_is_closed_and_ends(start, edges):
    found = closure(start, edges)
    assert start <= found
    assert closure(found, edges) == found


@pytest.mark.parametrize(
    ("touched", "expected"),
    [
        pytest.param(
            Touched(changes=frozenset({A})), Touched(changes=frozenset({A, B, C})),
            id="a cascade goes on",
        ),
        pytest.param(
            Touched(inserts=frozenset({A})), Touched(inserts=frozenset({A})),
            id="new rows cascade nowhere",
        ),
        pytest.param(
            Touched(reads=frozenset({D})), Touched(reads=frozenset({D, A})), id="a view's tables"
        ),
        pytest.param(
            Touched(inserts=frozenset({D})),
            Touched(inserts=frozenset({D}), changes=frozenset({A, B, C})),
            id="an insert into a view",
        ),
        pytest.param(
            Touched(inserts=frozenset({Table("t", "public")})),
            Touched(inserts=frozenset({Table("t", "public")}), changes=ALL_TABLES),
            id="a trigger may do anything, also on new rows",
        ),
        pytest.param(
            Touched(reads=frozenset({Table("t")})), Touched(reads=frozenset({Table("t")})),
            id="reading calls no trigger",
        ),
        pytest.param(ANYTHING, ANYTHING, id="more than anything there is not"),
    ],
)  # fmt: skip
def test_what_a_database_does_beyond_a_statement_is_added(touched, expected):
    relations = Relations(
        read_with={D: frozenset({A})},
        changed_with={A: frozenset({B}), B: frozenset({C}), C: frozenset({A})},
        inserted_with={D: frozenset({A})},
        with_triggers=frozenset({Table("t")}),
    )
    assert relations.applied_to(touched) == expected

"""Jobs come when they are due, in that order, unless they were taken out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.tasks.queue.due import Due


def test_equal_times_leave_as_they_came():
    due = Due()
    for name, at_us in (("late", 9), ("a", 5), ("b", 5)):
        due.add(name, at_us)
    assert due.next_us() == 5
    assert due.take(4) is None
    assert [due.take(9) for _ in range(4)] == ["a", "b", "late", None]


def test_what_was_taken_out_does_not_come_and_may_come_again():
    due = Due()
    due.add("a", 5)
    due.discard("a")
    assert (due.next_us(), len(due)) == (None, 0)
    due.add("a", 7)
    assert (due.next_us(), due.take(7), due.take(7)) == (7, "a", None)


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 50), max_size=90),
    st.sets(st.integers(0, 89)),
    st.integers(-1, 50),
)
def test_as_a_sorted_list_would(times, out, split):
    due = Due()
    for number, at_us in enumerate(times):
        due.add(number, at_us)
    left = {number: at_us for number, at_us in enumerate(times) if number not in out}
    for number in out & set(range(len(times))):
        due.discard(number)
    assert len(due._heap) <= 2 * len(left) + 65
    late = due.take_later(split)
    expected = sorted(left, key=lambda number: (left[number], number))
    assert late == [number for number in expected if left[number] > split]
    early = []
    while (number := due.take(50)) is not None:
        early.append(number)
    assert early == [number for number in expected if left[number] <= split]

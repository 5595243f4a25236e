"""Finished jobs and dead letters are kept within bounds of number, bytes and age."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.tasks.queue.kept import DeadLetters, Kept


@dataclass(eq=False)
class Done:
    finished_us: int
    kept_bytes: int = 10
    id: str = ""


def kept(gone, **bounds):
    return Kept(**{"jobs_max": 3, "bytes_max": 1000, "age_us": 100} | bounds, let_go=gone.append)


def test_the_newest_are_kept():
    gone = []
    some = kept(gone)
    jobs = [Done(us) for us in range(5)]
    for job in jobs:
        some.add(job)
    assert (gone, len(some), some.bytes) == (jobs[:2], 3, 30)


def test_large_ones_push_out_several():
    gone = []
    some = kept(gone, bytes_max=100)
    for size in (40, 40, 90):
        some.add(Done(0, size))
    assert [job.kept_bytes for job in gone] == [40, 40]
    some.add(Done(0, 101))
    assert (len(some), some.bytes) == (0, 0)


def test_old_ones_are_known_no_more_and_go_a_few_at_a_time():
    gone = []
    some = kept(gone, jobs_max=100)
    old = [Done(us) for us in range(10)]
    for job in old:
        some.add(job)
    assert some.holds(old[0], 100)
    assert not some.holds(old[0], 101)
    some.add(Done(500))
    assert gone == old[:4]
    some.trim(500, most=100)
    assert gone == old


def test_the_oldest_dead_letter_makes_room():
    gone = []
    dead = DeadLetters(jobs_max=2, bytes_max=100, let_go=gone.append)
    jobs = [Done(0, 10, id=name) for name in "abc"]
    for job in jobs:
        dead.add(job)
    assert gone == jobs[:1]
    assert dead.take("b") is jobs[1]
    assert dead.take("b") is None
    assert (dead.get("b"), dead.get("c"), list(dead), dead.bytes) == (None, jobs[2], jobs[2:], 10)
    dead.add(Done(0, 95, id="large"))
    assert [job.id for job in dead] == ["large"]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=30))
def test_bounds_hold_after_each(steps):
    gone, now_us = [], 0
    some = kept(gone, jobs_max=5, bytes_max=120)
    for added, (later_us, size) in enumerate(steps, start=1):
        now_us += later_us
        some.add(Done(now_us, size))
        assert len(some) <= 5
        assert some.bytes <= 120
        assert len(some) + len(gone) == added

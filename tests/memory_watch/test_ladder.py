"""Which step a share means, when it is left, when to clean up, and when to look again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.ladder import (
    COOLDOWNS_MAX,
    CRITICAL,
    HARD,
    NORMAL,
    RISE_PART,
    SOFT,
    Ladder,
    LadderState,
    after,
    cleaned,
    cleanup_is_due,
    is_worth_shrinking,
)
from perf_middleware.memory_watch.pace import (
    LOOKS_PART,
    SHORTEST_US,
    Growth,
    growth_after,
    wait_us,
)
from perf_middleware.memory_watch.reading import Bound, MemorySample

S = 1_000_000
LIMIT = 1_000_000
LADDER = Ladder(
    soft_share=0.75, hard_share=0.88, critical_share=0.95, relief_share=0.05, cooldown_us=10 * S
)


def bound(share, name="cgroup", where=""):
    return Bound(name=name, used_bytes=round(share * LIMIT), limit_bytes=LIMIT, where=where)


def sample(*shares, at_us=0, **named):
    bounds = [bound(share, where=str(number)) for number, share in enumerate(shares)]
    bounds += [bound(share, name) for name, share in named.items()]
    return MemorySample(at_us=at_us, rss_bytes=1, bounds=tuple(bounds))


def steps_of(shares, name="cgroup"):
    state, steps = LadderState(), []
    for at, share in enumerate(shares):
        state = after(state, sample(at_us=at * S, **{name: share}), ladder=LADDER)
        steps.append(state.step)
    return steps


# --- the step ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "steps"),
    [
        pytest.param([0.1, 0.7499, 0.75], [0, 0, 1], id="a step begins at its share"),
        pytest.param([0.1, 0.96], [0, 3], id="up at once, over steps where it must"),
        pytest.param([0.9, 0.831, 0.83, 0.83], [2, 2, 1, 1], id="down at the relief, not before"),
        pytest.param([0.96, 0.9], [3, 2], id="at the relief of any step"),
        pytest.param([0.96, 0.1, 0.1, 0.1, 0.1], [3, 2, 1, 0, 0], id="down one step a look"),
        pytest.param([0.76, 0.74, 0.76, 0.71], [1, 1, 1, 1], id="around a step nothing changes"),
        pytest.param([0.96, 0.1, 0.9, 0.1], [3, 2, 2, 1], id="a relapse ends the fall"),
        pytest.param([1.5], [3], id="a limit that was lowered below what is used"),
    ],
)
def test_the_step_rises_at_once_and_falls_by_its_relief(shares, steps):
    assert steps_of(shares) == steps


def test_a_machine_that_others_fill_is_never_critical():
    assert steps_of([0.99, 1.0, 0.84, 0.83], name="system") == [2, 2, 2, 1]


def test_the_state_names_the_bound_that_holds_the_step():
    state = after(LadderState(), sample(system=0.99, cgroup=0.96), ladder=LADDER)
    assert (state.step, state.bound.name) == (CRITICAL, "cgroup")
    state = after(state, sample(system=0.99, cgroup=0.2), ladder=LADDER)
    assert (state.step, state.bound.name) == (HARD, "system")
    state = after(state, sample(system=0.3, cgroup=0.2), ladder=LADDER)
    assert (state.step, state.bound.name) == (SOFT, "system")
    state = after(state, sample(system=0.3, rlimit_as=0.4), ladder=LADDER)
    assert (state.step, state.bound.name) == (NORMAL, "rlimit_as")


def test_without_any_bound_it_is_normal_again_step_by_step():
    state = after(LadderState(), sample(0.9), ladder=LADDER)
    seen = []
    for _ in range(3):
        state = after(state, sample(), ladder=LADDER)
        seen.append((state.step, state.bound))
    assert seen == [(1, None), (0, None), (0, None)]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"soft_share": 0.9}, id="soft above hard"),
        pytest.param({"critical_share": 1.1}, id="more than there is"),
        pytest.param({"relief_share": 0.75}, id="a relief that nothing reaches"),
        pytest.param({"cooldown_us": 0}, id="no cooldown"),
    ],
)
def test_steps_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValueError, match="must hold"):
        replace(LADDER, **wrong)


shares = st.floats(0, 1.2)
runs = st.lists(
    st.tuples(st.integers(1, 3 * S), st.dictionaries(st.sampled_from(["cgroup", "system"]), shares),
              st.sampled_from([0.0, 0.5])),
    max_size=60,
)  # fmt: skip


@given(st.lists(shares, max_size=60))
def test_a_step_never_flaps_faster_than_the_relief_allows(shares):
    state, left_at = LadderState(), {}
    for share in shares:
        before, state = state, after(state, sample(share), ladder=LADDER)
        used = state.bound.share
        assert state.step >= before.step - 1
        for step, begins_at in enumerate(LADDER.shares, start=1):
            if before.step < step <= state.step:
                assert used >= begins_at
                assert used > left_at.get(step, 0.0)
            if state.step < step <= before.step:
                assert used <= begins_at - LADDER.relief_share + 1e-9
                left_at[step] = used


# --- when to clean up --------------------------------------------------------------------------


def cleanups_of(looks, *, brought):
    """When a cleanup ran; each frees `brought` of the limit, as it is told. Looks: (s, share)."""
    state, times = LadderState(), []
    for at_s, share in looks:
        at_us = round(at_s * S)
        state = after(state, sample(share, at_us=at_us), ladder=LADDER)
        if cleanup_is_due(state, now_us=at_us, ladder=LADDER):
            times.append(at_s)
            state = cleaned(
                state, step=state.step, brought_share=brought, now_us=at_us, ladder=LADDER
            )
    return times


def always(share, until_s):
    return [(at_s, share) for at_s in range(until_s)]


@pytest.mark.parametrize(
    ("looks", "brought", "times"),
    [
        pytest.param(always(0.74, 100), 0.1, [], id="nothing is done below soft"),
        pytest.param(always(0.8, 35), 0.1, [0, 10, 20, 30], id="while it stays, each cooldown"),
        pytest.param(always(0.8, 700), 0.0, [0, 20, 60, 140, 300, 460, 620],
                     id="in vain: ever more seldom, up to a bound"),
        pytest.param([(0, 0.8), (1, 0.7), (2, 0.8), (3, 0.7), (3.5, 0.8)], 0.1, [0, 2, 3.5],
                     id="each rise is a reason"),
        pytest.param([(0, 0.8), (0.3, 0.7), (0.6, 0.8), (0.9, 0.8), (1, 0.8)], 0.1, [0, 1],
                     id="and rises wait for a part of the cooldown"),
        pytest.param([(0, 0.8), (2, 0.7), (4, 0.8), (19, 0.8), (20, 0.8)], 0.0, [0, 20],
                     id="a rise to where the last was in vain waits for all of it"),
        pytest.param([(0, 0.8), (2, 0.9), (4, 0.96)], 0.0, [0, 2, 4],
                     id="a step that is higher is worth another try"),
        pytest.param([(0, 0.8), (0.1, 0.7), (0.2, 0.8), (0.3, 0.9), (0.4, 0.96), (0.5, 0.96)], 0.1,
                     [0, 0.3, 0.4], id="what helped at a step is tried at once at each above it"),
        pytest.param([(0, 0.96), (2, 0.9), (4, 0.8), (6, 0.9)], 0.1, [0, 6],
                     id="a fall is no reason, a rise after it is"),
    ],
)  # fmt: skip
def test_a_cleanup_is_due_at_a_rise_and_after_each_cooldown(looks, brought, times):
    assert cleanups_of(looks, brought=brought) == times


@pytest.mark.parametrize(
    ("looks", "brought", "shrinks"),
    [
        pytest.param([0.8, 0.8, 0.8], 0.1, [True, True, True], id="as long as it brings something"),
        pytest.param([0.8, 0.8, 0.8], 0.0, [True, False, False], id="once in vain"),
        pytest.param([0.8, 0.9, 0.9], 0.0, [True, True, True], id="from hard on always"),
        pytest.param([0.9, 0.8, 0.8], 0.0, [True, False, False], id="not any more below it"),
        pytest.param([0.8, 0.5, 0.8, 0.8], 0.0, [True, True, False], id="again after a new rise"),
    ],
)  # fmt: skip
def test_caches_shrink_in_vain_once_at_soft(looks, brought, shrinks):
    state, found = LadderState(), []
    for at, share in enumerate(looks):
        at_us = at * 1_000 * S
        state = after(state, sample(share, at_us=at_us), ladder=LADDER)
        if cleanup_is_due(state, now_us=at_us, ladder=LADDER):
            found.append(is_worth_shrinking(state, ladder=LADDER))
            state = cleaned(
                state, step=state.step, brought_share=brought, now_us=at_us, ladder=LADDER
            )
    assert found == shrinks


def test_a_rise_during_a_cleanup_is_one_after_it():
    state = after(LadderState(), sample(0.8), ladder=LADDER)
    state = after(state, sample(0.9, at_us=S), ladder=LADDER)
    state = cleaned(state, step=SOFT, brought_share=0.0, now_us=S, ladder=LADDER)
    assert not cleanup_is_due(state, now_us=2 * S - 1, ladder=LADDER)
    assert cleanup_is_due(state, now_us=2 * S, ladder=LADDER)


@given(runs)
def test_cleanups_keep_their_distance_whatever_memory_does(run):
    state, now_us = LadderState(), 0
    last_us, rose, gap_us, step_then = None, False, 0, NORMAL
    for passed_us, named, brought in run:
        now_us += passed_us
        before, state = state, after(state, sample(at_us=now_us, **named), ladder=LADDER)
        rose = rose or state.step > before.step
        if not cleanup_is_due(state, now_us=now_us, ladder=LADDER):
            continue
        assert state.step >= SOFT
        if last_us is not None:
            least_us = LADDER.cooldown_us // RISE_PART if rose else LADDER.cooldown_us
            if gap_us > LADDER.cooldown_us and state.step <= step_then:
                least_us = gap_us  # the last was in vain
            elif gap_us == LADDER.cooldown_us and state.step > step_then:
                least_us = 0  # it helped, and the step is higher: three in a row at most
            assert now_us - last_us >= least_us
        state = cleaned(state, step=state.step, brought_share=brought, now_us=now_us, ladder=LADDER)
        last_us, rose, gap_us, step_then = now_us, False, state.gap_us, state.step
        assert LADDER.cooldown_us <= gap_us <= COOLDOWNS_MAX * LADDER.cooldown_us


# --- when to look again ------------------------------------------------------------------------


def pace(*looks, look_us=0, interval_us=S):
    """The wait after these (s, share)."""
    growth = Growth()
    for at_s, share in looks:
        last = sample(share, at_us=round(at_s * S))
        growth = growth_after(growth, last)
    return wait_us(growth, last, ladder=LADDER, interval_us=interval_us, look_us=look_us)


@pytest.mark.parametrize(
    ("looks", "wait_s"),
    [
        pytest.param([(0, 0.7)], 1, id="one look knows no growth"),
        pytest.param([(0, 0.5), (1, 0.5)], 1, id="what does not grow is looked at in its time"),
        pytest.param([(0, 0.5), (1, 0.4)], 1, id="nor what falls"),
        pytest.param([(0, 0.5), (1, 0.501)], 1, id="what grows slowly has time"),
        pytest.param([(0, 0.5), (1, 0.65)], 0.333, id="half of the time to the next step"),
        pytest.param([(0, 0.5), (1, 0.74)], 0.05, id="the shortest wait, right before it"),
        pytest.param([(0, 0.5), (1, 0.97)], 0.05, id="above all steps the limit itself"),
        pytest.param([(0, 0.94), (1, 0.96)], 1, id="which may be far"),
        pytest.param([(0, 1.1), (1, 1.2)], 0.05, id="over the limit there is no time"),
        pytest.param([(0, 0.3), (1, 0.6), (2, 0.6)], 0.5, id="a pause is half believed"),
        pytest.param([(0, 0.3), (0, 0.6)], 1, id="two looks at one moment tell nothing"),
    ],
)
def test_the_next_look_is_sooner_where_memory_runs_towards_a_bound(looks, wait_s):
    assert pace(*looks) / S == pytest.approx(wait_s, abs=0.01)


def test_each_bound_grows_for_itself():
    growth = growth_after(Growth(), sample(cgroup=0.2, system=0.7))
    last = sample(cgroup=0.7, system=0.7, at_us=10 * S)
    growth = growth_after(growth, last)
    waits_us = wait_us(growth, last, ladder=LADDER, interval_us=S, look_us=0)
    assert waits_us == pytest.approx(S / 2)


def test_a_limit_that_others_push_down_comes_nearer_too():
    def of_system(at_us, limit_bytes):
        bound = Bound(name="system", used_bytes=1000, limit_bytes=limit_bytes)
        return MemorySample(at_us=at_us, rss_bytes=1000, bounds=(bound,))

    growth = growth_after(Growth(), of_system(0, 3000))
    last = of_system(S, 1500)
    growth = growth_after(growth, last)
    assert wait_us(growth, last, ladder=LADDER, interval_us=S, look_us=0) < S / 10


@given(
    st.lists(shares, min_size=1, max_size=20),
    st.integers(0, 50_000),
    st.sampled_from([50_000, S, 60 * S]),
)
def test_a_look_is_never_later_than_the_interval_nor_dearer_than_its_part(
    shares, look_us, interval_us
):
    waits_us = pace(*enumerate(shares), look_us=look_us, interval_us=interval_us)
    assert waits_us <= interval_us
    assert waits_us >= min(interval_us, max(SHORTEST_US, LOOKS_PART * look_us))

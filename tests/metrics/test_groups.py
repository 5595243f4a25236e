"""Which workers belong together, and when their directory is litter: tables."""

from __future__ import annotations

import pytest

from perf_middleware.metrics.workers.groups import (
    UNTOUCHED_MAX_S,
    Place,
    ProcessMark,
    Surroundings,
    file_name_of,
    is_over,
    parent_of,
    place_of,
    worker_names,
)

SPAWNER = ProcessMark(10, 1234, "0b64e2e2", "4026531836")
ARBITER = ProcessMark(20, 5678, "0b64e2e2", "4026531836")
FOUND = "/run/user/1000/perf_middleware-1000"


def seen(**changes):
    return Surroundings(uid=1000, runtime_dir="/run/user/1000", child_of=ARBITER, **changes)


@pytest.mark.parametrize(
    ("surroundings", "place"),
    [
        pytest.param(seen(), None, id="a process on its own"),
        pytest.param(
            seen(spawned_by=SPAWNER),
            Place(FOUND, "shop-10-1234-0b64e2e2-4026531836.v1", private_base=True),
            id="spawned by multiprocessing",
        ),
        pytest.param(
            seen(server_software="gunicorn/23.0.0"),
            Place(FOUND, "shop-20-5678-0b64e2e2-4026531836.v1", private_base=True),
            id="forked by gunicorn",
        ),
        pytest.param(
            seen(server_software="gunicorn", spawned_by=SPAWNER),
            Place(FOUND, "shop-10-1234-0b64e2e2-4026531836.v1", private_base=True),
            id="spawned by something that inherited gunicorn's environment",
        ),
        pytest.param(seen(server_software="waitress"), None, id="another server's environment"),
        pytest.param(
            seen(directory="/srv/run", spawned_by=SPAWNER),
            Place("/srv/run", "shop.v1", private_base=False),
            id="the operator's directory wins",
        ),
        pytest.param(
            Surroundings(server_software="gunicorn", child_of=None), None, id="a parent just gone"
        ),
    ],
)
def test_workers_meet_where_their_parent_is_named(surroundings, place):
    assert place_of(surroundings, service="shop") == place


@pytest.mark.parametrize(
    ("service", "name"),
    [
        pytest.param("shop", "shop", id="plain"),
        pytest.param("shop.v2", "shop.v2", id="with a dot"),
        pytest.param("my shop", "my_shop_21e02318", id="with a space"),
        pytest.param("my/shop", "my_shop_ac658164", id="no way out of the directory"),
        pytest.param("../..", "_.._0cfd1c96", id="nor this one"),
        pytest.param("", "_e3b0c442", id="empty"),
        pytest.param("x" * 65, "x" * 64 + "_9537c5fd", id="too long"),
    ],
)
def test_a_service_becomes_a_file_name_of_its_own(service, name):
    assert file_name_of(service) == name


def test_a_directory_tells_its_parent_and_other_names_do_not():
    place = place_of(seen(spawned_by=SPAWNER), service="my-shop-1-2-ab-3.v1")
    assert parent_of(place.name) == SPAWNER
    for name in ("shop.v1", "shop", "shop-10-1234.v1", f"{place.name}x", f"{place.name}\n"):
        assert parent_of(name) is None


@pytest.mark.parametrize(
    ("change", "start_now", "untouched_s", "over"),
    [
        pytest.param({}, 1234, 1e9, False, id="the parent lives"),
        pytest.param({}, None, 0.0, True, id="the parent is gone"),
        pytest.param({}, 1235, 0.0, True, id="another process has its pid"),
        pytest.param({"boot": "ffffffff"}, 1234, 0.0, True, id="from before a restart"),
        pytest.param({"namespace": "7"}, None, 9.0, False, id="another container, in use"),
        pytest.param({"namespace": "7"}, 1234, UNTOUCHED_MAX_S + 1, True, id="forgotten"),
    ],
)
def test_a_group_is_over_with_its_parent(change, start_now, untouched_s, over):
    mark = {"pid": 10, "start": 1234, "boot": "0b64e2e2", "namespace": "4026531836"} | change
    here = ProcessMark(99, 9999, "0b64e2e2", "4026531836")
    result = is_over(ProcessMark(**mark), here=here, start_now=start_now, untouched_s=untouched_s)
    assert result is over


@pytest.mark.parametrize(
    ("pids", "names"),
    [
        pytest.param({"7-aa.snap": "7", "8-bb.snap": "8"}, ["7", "8"], id="pids"),
        pytest.param(
            {"1-aa.snap": "1", "1-bb.snap": "1", "2-cc.snap": "2"},
            ["1-aa", "1-bb", "2"],
            id="and more where two are alike",
        ),
        pytest.param({"": "7"}, ["7"], id="without a directory"),
    ],
)
def test_every_worker_of_a_group_has_a_name_of_its_own(pids, names):
    assert list(worker_names(pids).values()) == names

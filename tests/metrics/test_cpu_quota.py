import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.metrics.probes.process import cpu_quota
from perf_middleware.metrics.watching.cpu_quota import quota_dirs, quota_v1, quota_v2


@pytest.mark.parametrize(
    ("text", "dirs"),
    [
        pytest.param("0::/\n", ("",), id="v2 in a container"),
        pytest.param("0::/app/web\n", ("app/web", "app", ""), id="v2, all the way up"),
        pytest.param("0::/../other\n", ("other", ""), id="v2, outside its namespace"),
        pytest.param("4:cpu,cpuacct:/app\n", ("cpu/app", "cpu"), id="v1"),
        pytest.param("3:cpuset:/a\n2:cpuacct:/b\n", (), id="other controllers"),
        pytest.param("1:cpu:/\n0::/\n", ("cpu", ""), id="both at once"),
        pytest.param("nonsense\n\n1:2", (), id="another text"),
    ],
)
def test_a_groups_quotas_are_looked_for_from_itself_to_the_root(text, dirs):
    assert quota_dirs(text) == dirs


@settings(deadline=None)
@given(st.text())
def test_any_text_leads_to_places_below_the_root(text):
    for directory in quota_dirs(text):
        assert not directory.startswith("/")
        assert ".." not in directory.split("/")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000", 0.5), ("", None), ("0 1", None),
     ("1 0", None), ("a b c", None)],
)  # fmt: skip
def test_cpu_max_is_quota_over_period(text, cpus):
    assert quota_v2(text) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("-1\n", "100000\n", None), ("200000\n", "100000\n", 2.0), ("", "", None), ("1", "", None)],
)
def test_a_quota_of_minus_one_is_no_limit(quota, period, cpus):
    assert quota_v1(quota, period) == cpus


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_smallest_quota_on_the_way_up_holds(tmp_path):
    of_self = tmp_path / "self"
    write(of_self, "0::/pod/web\n")
    write(tmp_path / "fs/pod/web/cpu.max", "400000 100000\n")
    write(tmp_path / "fs/pod/cpu.max", "250000 100000\n")
    assert cpu_quota(tmp_path / "fs", of_self) == 2.5


def test_a_path_of_the_host_leads_to_the_containers_own_root(tmp_path):
    of_self = tmp_path / "self"
    write(of_self, "4:cpu,cpuacct:/docker/0123\n")
    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "fs/cpu/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path / "fs", of_self) == 0.5


def test_no_control_group_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "missing") is None

"""Where control groups are, for every way in which trees are mounted and seen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.control_groups import Group, groups, memberships, mounts, upwards

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:29 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 master:1 - cgroup cgroup rw,memory\n"
)
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "found"),
    [
        pytest.param(
            "0::/a.slice/web.service\n", V2,
            [(2, "/a.slice/web.service", "/sys/fs/cgroup/a.slice/web.service"),
             (2, "/a.slice", "/sys/fs/cgroup/a.slice"), (2, "/", "/sys/fs/cgroup")],
            id="version 2, all the way up",
        ),
        pytest.param("0::/\n", V2, [(2, "/", "/sys/fs/cgroup")], id="version 2 in a container"),
        pytest.param(
            "0::/../beside\n", V2,
            [(2, "/beside", "/sys/fs/cgroup/beside"), (2, "/", "/sys/fs/cgroup")],
            id="version 2, outside its namespace",
        ),
        pytest.param(
            "5:memory:/app\n2:cpu,cpuacct:/other\n", V1,
            [(1, "/app", "/sys/fs/cgroup/memory/app"), (1, "/", "/sys/fs/cgroup/memory")],
            id="version 1",
        ),
        pytest.param(
            "4:memory:/app\n0::/user\n", V1 + UNIFIED,
            [(1, "/app", "/sys/fs/cgroup/memory/app"), (1, "/", "/sys/fs/cgroup/memory"),
             (2, "/user", "/sys/fs/cgroup/unified/user"), (2, "/", "/sys/fs/cgroup/unified")],
            id="both side by side",
        ),
        pytest.param(
            "4:memory:/docker/0a1b/web\n",
            "35 31 0:32 /docker/0a1b /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            [(1, "/docker/0a1b/web", "/sys/fs/cgroup/memory/web"),
             (1, "/docker/0a1b", "/sys/fs/cgroup/memory")],
            id="a container that sees its own group alone, by the host's path",
        ),
        pytest.param(
            "4:memory:/\n",
            "35 31 0:32 /docker/0a1b /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            [(1, "/docker/0a1b", "/sys/fs/cgroup/memory")],
            id="the same by its own path",
        ),
        pytest.param(
            "0::/docker/0a1b2\n",
            "35 31 0:32 /docker/0a1b /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
            [(2, "/docker/0a1b/docker/0a1b2", "/sys/fs/cgroup/docker/0a1b2"),
             (2, "/docker/0a1b/docker", "/sys/fs/cgroup/docker"),
             (2, "/docker/0a1b", "/sys/fs/cgroup")],
            id="a path that only begins like what is mounted",
        ),
        pytest.param(
            "0::/a\n", r"9 1 0:1 / /mnt/my\040groups rw - cgroup2 none rw",
            [(2, "/a", "/mnt/my groups/a"), (2, "/", "/mnt/my groups")],
            id="mounted elsewhere, with a blank",
        ),
        pytest.param(
            "4:memory:/a\n0::/\n", "",
            [(1, "/a", "/sys/fs/cgroup/memory/a"), (1, "/", "/sys/fs/cgroup/memory"),
             (2, "/", "/sys/fs/cgroup"), (2, "/", "/sys/fs/cgroup/unified")],
            id="mounts that are not told: the usual places",
        ),
        pytest.param("3:cpuset:/a\n1:name=systemd:/b\n", V1, [], id="other controllers"),
        pytest.param("", V1 + V2, [], id="no control groups"),
        pytest.param("nonsense\n\n1:2\n0::relative", "a b - c\n", [], id="other texts"),
    ],
)  # fmt: skip
def test_groups_are_named_from_the_own_one_upwards(cgroup, mountinfo, found):
    assert groups(cgroup, mountinfo, "memory") == tuple(Group(*one) for one in found)


def test_a_way_up_has_an_end():
    assert len(upwards("/a" * 10_000)) == 65


WORDS = st.sampled_from(
    ["0::", "4:memory:", "/", "/a", "..", "\n", " ", " - ", "cgroup", "cgroup2", "rw,memory",
     "\\040", "\\777", "\0", ":", "31 23 0:29 "]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(WORDS, max_size=20).map("".join))


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_any_texts_lead_to_places_below_a_mount(cgroup, mountinfo):
    points = [mount.point.rstrip("/") for mount in mounts(mountinfo, "memory")]
    for group in groups(cgroup, mountinfo, "memory"):
        assert group.path.startswith("/")
        assert ".." not in group.path.split("/")
        if points:
            assert any(
                group.directory == point or group.directory.startswith(f"{point}/")
                for point in points
            )
    assert all(member.path.startswith("/") for member in memberships(cgroup, "memory"))

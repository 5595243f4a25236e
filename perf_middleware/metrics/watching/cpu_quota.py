"""How many processors a control group may use, from the texts that the kernel shows.

    v2   /proc/self/cgroup  0::/app/web           ->  <root>/app/web/cpu.max, and upwards
    v1                      4:cpu,cpuacct:/app    ->  <root>/cpu/app/cpu.cfs_quota_us, …

A group is held to the smallest quota on its way up.  Inside a container the path may be the host's
and lead nowhere; the root is then the container's own group.
Sources: Linux Documentation/admin-guide/cgroup-v2.rst (CPU), scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from perf_middleware.control_groups import memberships, upwards

V1_CONTROLLER = "cpu"


def quota_dirs(cgroup_text: str) -> tuple[str, ...]:
    """Directories below the control groups' root that may hold a quota, own group first.

    `cgroup_text` is /proc/self/cgroup; lines of another form are passed over.
    """
    dirs: list[str] = []
    for member in memberships(cgroup_text, V1_CONTROLLER):
        prefix = V1_CONTROLLER if member.version == 1 else ""
        dirs += (f"{prefix}/{below}".strip("/") for below in upwards(member.path))
    return tuple(dict.fromkeys(dirs))


def quota_v2(cpu_max: str) -> float | None:
    """Processors that `cpu.max` allows; None for no limit or another text."""
    quota, _, period = cpu_max.strip().partition(" ")
    return _ratio(quota, period or "100000")


def quota_v1(quota_us: str, period_us: str) -> float | None:
    """Processors that `cpu.cfs_quota_us` allows; None for no limit (-1) or another text."""
    return _ratio(quota_us.strip(), period_us.strip())


def _ratio(quota: str, period: str) -> float | None:
    if not (quota.isdecimal() and period.isdecimal()) or int(quota) < 1 or int(period) < 1:
        return None
    return int(quota) / int(period)

r"""Where the control groups of this process are, from the texts that the kernel shows.

    /proc/self/cgroup     0::/app/web               v2: one tree for all controllers
                          4:memory:/app/web         v1: a tree for each
    /proc/self/mountinfo  … / /sys/fs/cgroup … - cgroup2 …           where a tree is mounted,
                          … /app /sys/fs/cgroup/memory … - cgroup … rw,memory    and from which
                                                                   group of it downwards
    together              /sys/fs/cgroup/memory/web, /sys/fs/cgroup/memory   own group first

A limit of any group on the way up holds.  Both versions may stand side by side; a controller is in
one of them.  Inside a container the path may be the host's and lead nowhere: the directory that is
mounted is then the container's own group, so it is always the last of the way up.
Sources: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/cgroups.rst; cgroups(7);
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Version: TypeAlias = Literal[1, 2]

_OCTAL: Final = re.compile(r"\\([0-3][0-7]{2})")  # a blank in a path is \040
_DEPTH_MAX: Final = 64  # a way up that is longer is no real one


@dataclass(frozen=True, slots=True)
class Membership:
    """The group of this process in one tree, by its path there."""

    version: Version
    path: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A tree that can be seen at `point`, from its group `root` downwards."""

    version: Version
    root: str
    point: str


@dataclass(frozen=True, slots=True)
class Group:
    """One group: its path in its tree, and the directory that holds its files."""

    version: Version
    path: str
    directory: str


def memberships(cgroup_text: str, controller: str) -> tuple[Membership, ...]:
    """Groups of /proc/self/cgroup that may hold a limit of `controller`, in its order.

    A v2 tree may hold one of every controller.  Lines of another form are passed over.
    """
    found: list[Membership] = []
    for line in cgroup_text.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon or not path.startswith("/"):
            continue
        if not controllers:
            found.append(Membership(2, path))
        elif controller in controllers.split(","):
            found.append(Membership(1, path))
    return tuple(found)


def mounts(mountinfo_text: str, controller: str) -> tuple[Mount, ...]:
    """Mounted trees of /proc/self/mountinfo that may hold `controller`, in its order."""
    return tuple(_mounts(mountinfo_text, controller))


def _mounts(mountinfo_text: str, controller: str) -> Iterator[Mount]:
    for line in mountinfo_text.splitlines():
        # id parent device root point options [optional fields] - type source super-options
        before, dash, after = line.partition(" - ")
        place, kind = before.split(" "), after.split(" ")
        if not dash or len(place) < 6 or len(kind) < 3:
            continue
        root, point = _unescaped(place[3]), _unescaped(place[4])
        if kind[0] == "cgroup2":
            yield Mount(2, root, point)
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            yield Mount(1, root, point)


def _unescaped(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def usual_mounts(controller: str) -> tuple[Mount, ...]:
    """Where trees are mounted on most systems, for one that does not tell."""
    return (
        Mount(1, "/", f"/sys/fs/cgroup/{controller}"),
        Mount(2, "/", "/sys/fs/cgroup"),
        Mount(2, "/", "/sys/fs/cgroup/unified"),
    )


def upwards(path: str) -> tuple[str, ...]:
    """`path` without its leading slash, its parents, and the root as an empty text at the end."""
    # `..` stands for groups outside the namespace, which are not mounted.
    parts = [part for part in path.split("/") if part not in ("", ".", "..")][:_DEPTH_MAX]
    return tuple("/".join(parts[:depth]) for depth in range(len(parts), -1, -1))


def groups(cgroup_text: str, mountinfo_text: str, controller: str) -> tuple[Group, ...]:
    """Places that may hold a limit of `controller`: own group first, then all above it.

    Some may not exist, and none is named twice.  Without any mount of such a tree the usual
    places are named.
    """
    places = mounts(mountinfo_text, controller) or usual_mounts(controller)
    found: dict[str, Group] = {}
    for member in memberships(cgroup_text, controller):
        for mount in places:
            if mount.version == member.version:
                for group in _way_up(member, mount):
                    found.setdefault(group.directory, group)
    return tuple(found.values())


def _way_up(member: Membership, mount: Mount) -> Iterator[Group]:
    top = upwards(mount.root)[0]
    path = upwards(member.path)[0]
    if top and (path == top or path.startswith(f"{top}/")):
        path = path[len(top) :]
    point = mount.point.rstrip("/")
    for below in upwards(path):
        names = "/".join(name for name in (top, below) if name)
        yield Group(member.version, f"/{names}", f"{point}/{below}" if below else point)

"""The probe in processes that are really limited: by a control group, by resource limits.

Where no memory control group can be made (no Linux, not root, a version 2 tree that lends none), an
imitated one shows the same, and the trees of files in test_memory_probe.py every layout.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

import perf_middleware
from perf_middleware.control_groups import groups
from perf_middleware.memory_watch.control_groups import FILES

MIB = 1 << 20
LIMIT_BYTES = 128 * MIB
ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells these")

BEGIN = """
import json, os, sys
from dataclasses import asdict
from perf_middleware.memory_watch.probes.memory import MemoryProbe

MIB = 1 << 20

def tell(**figures):
    print(json.dumps(figures), flush=True)

def look(probe):
    sample = probe.sample()
    tell(
        rss=sample.rss_bytes,
        bounds={one.name + one.where: [one.used_bytes, one.limit_bytes] for one in sample.bounds},
    )

def written(mib):
    block = bytearray(mib * MIB)
    block[::4096] = b"x" * len(block[::4096])  # a page that was only promised is not in RAM
    return block
"""


def run(script, *arguments):
    """What the child told, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(perf_middleware.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- control groups -----------------------------------------------------------------------------


def own_places():
    texts = [Path(f"/proc/self/{name}").read_text() for name in ("cgroup", "mountinfo")]
    return groups(*texts, "memory")


def made_below(place):
    """A new group there with a limit on memory, or None where the kernel offers none."""
    directory = Path(place.directory) / f"perf-memory-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError:
        return None
    try:
        (directory / FILES[place.version].limit).write_text(str(LIMIT_BYTES))
    except OSError:  # a version 2 tree that does not lend the memory controller
        directory.rmdir()
        return None
    return directory


def removed(directory):
    for _ in range(200):  # a group is empty a moment after its last process has ended
        try:
            directory.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return


@pytest.fixture
def group():
    """The path and the directory of a limited group; skips where none can be made."""
    if sys.platform.startswith("linux"):
        for place in own_places():
            directory = made_below(place)
            if directory is not None:
                try:
                    yield f"{place.path.rstrip('/')}/{directory.name}", directory
                finally:
                    removed(directory)
                return
    pytest.skip("no memory control group can be made here")


GROW = """
def grow(probe, before_each_look=lambda: None):
    kept = []
    for _ in range(4):
        before_each_look()
        look(probe)
        kept.append(written(20))
    picture = probe.status()
    tell(group=picture["group"], tightest=picture["tightest"])
"""

JOIN_AND_GROW = (
    GROW
    + """
with open(f"{sys.argv[1]}/cgroup.procs", "w") as processes:
    processes.write(str(os.getpid()))
grow(MemoryProbe())
"""
)

IMITATE_AND_GROW = (
    GROW
    + """
from pathlib import Path
root = Path(sys.argv[1])

def charge():
    rss = MemoryProbe().sample().rss_bytes
    (root / "sys/fs/cgroup/app/memory.current").write_text(f"{rss}\\n")

charge()
grow(MemoryProbe(root=root), charge)
"""
)


def sees_its_limit_and_a_growing_share(told, path):
    *looks, picture = told
    used = [look["bounds"][f"cgroup{path}"][0] for look in looks]
    assert {look["bounds"][f"cgroup{path}"][1] for look in looks} == {LIMIT_BYTES}
    steps = [after - before for before, after in pairwise(used)]
    assert all(15 * MIB < step < 30 * MIB for step in steps), used
    assert picture["tightest"] == "cgroup"
    assert picture["group"]["path"] == path
    assert picture["group"]["limit_bytes"] == picture["group"]["max_bytes"] == LIMIT_BYTES
    assert picture["group"]["events"]["oom_kill"] == 0


def test_a_process_in_a_group_sees_its_limit_and_a_share_that_grows(group):
    path, directory = group
    told = run(JOIN_AND_GROW, directory)
    sees_its_limit_and_a_growing_share(told, path)
    assert told[-1]["group"]["peak_bytes"] is None or told[-1]["group"]["peak_bytes"] > 60 * MIB


@ON_LINUX
def test_the_same_in_an_imitated_group(tmp_path):
    for name, text in {
        "proc/self/cgroup": "0::/app\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/app/memory.max": f"{LIMIT_BYTES}\n",
        "sys/fs/cgroup/app/memory.events": "max 0\noom_kill 0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    sees_its_limit_and_a_growing_share(run(IMITATE_AND_GROW, tmp_path), "/app")


CACHE = """
directory, file = sys.argv[1:]
with open(f"{directory}/cgroup.procs", "w") as processes:
    processes.write(str(os.getpid()))
probe = MemoryProbe()
look(probe)
with open(file, "wb") as written_to_disk:
    for _ in range(60):
        written_to_disk.write(bytes(MIB))
    written_to_disk.flush()
    os.fsync(written_to_disk.fileno())
look(probe)
group = probe.read().group
tell(usage=group.usage_bytes, used=group.used_bytes)
"""


def test_files_in_the_page_cache_are_no_use_of_the_limit(group, tmp_path):
    path, directory = group
    before, after, figures = run(CACHE, directory, tmp_path / "file")
    if figures["usage"] - figures["used"] < 30 * MIB:
        pytest.skip("what lies under the temporary directory keeps no pages in this group")
    used_bytes = [look["bounds"][f"cgroup{path}"][0] for look in (before, after)]
    assert used_bytes[1] - used_bytes[0] < 20 * MIB


# --- resource limits ----------------------------------------------------------------------------

LIMITED = """
import resource
kind, name = getattr(resource, sys.argv[1]), sys.argv[2]
probe = MemoryProbe()
before = probe.sample()
assert name not in {one.name for one in before.bounds}, before
resource.setrlimit(kind, (1024 * MIB, resource.getrlimit(kind)[1]))
probe = MemoryProbe()
look(probe)
kept = written(100)
look(probe)
"""


@ON_LINUX
@pytest.mark.parametrize(
    ("limit", "bound"), [("RLIMIT_DATA", "rlimit_data"), ("RLIMIT_AS", "rlimit_as")]
)
def test_a_resource_limit_is_a_bound_of_which_more_is_used(limit, bound):
    import resource

    if resource.getrlimit(getattr(resource, limit))[0] != resource.RLIM_INFINITY:
        pytest.skip(f"{limit} is set around the tests")
    before, after = (look["bounds"][bound] for look in run(LIMITED, limit, bound))
    assert before[1] == after[1] == 1024 * MIB
    assert 95 * MIB < after[0] - before[0] < 130 * MIB


@ON_LINUX
def test_a_process_is_refused_memory_about_where_its_bound_says():
    [told] = run("""
import resource
resource.setrlimit(resource.RLIMIT_DATA, (256 * MIB, resource.getrlimit(resource.RLIMIT_DATA)[1]))
probe, kept = MemoryProbe(), []
try:
    while True:
        kept.append(written(4))
        share = probe.sample().share
except MemoryError:
    tell(share=share)
""")
    assert told["share"] > 0.95


# --- processes ----------------------------------------------------------------------------------


@ON_LINUX
def test_a_forked_process_sees_its_own_memory():
    parent, child, again = run("""
probe = MemoryProbe(requests=lambda: 3)
def figures():
    reading = probe.read()
    tell(pid=os.getpid(), rss=probe.sample().rss_bytes, unique=reading.process.unique_bytes,
         anonymous=probe.witness().anonymous_bytes)
figures()
forked = os.fork()
if forked == 0:
    kept = written(50)
    figures()
    os._exit(0)
os.waitpid(forked, 0)
figures()
""")
    assert parent["pid"] == again["pid"] != child["pid"]
    for figure in ("rss", "anonymous", "unique"):
        assert child[figure] - parent[figure] > 30 * MIB, figure
        assert abs(again[figure] - parent[figure]) < 20 * MIB, figure


@ON_LINUX
def test_a_process_without_a_descriptor_left_keeps_its_last_figures():
    before, after = run("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
probe = MemoryProbe(limit_bytes=1 << 40)
look(probe)
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    look(probe)
""")
    assert before == after
    assert "configured" in before["bounds"]


@ON_LINUX
def test_the_probe_leaves_no_file_open():
    [told] = run("""
probe = MemoryProbe()
def descriptors():
    return len(os.listdir("/proc/self/fd"))
before = descriptors()
for _ in range(10):
    probe.sample(), probe.witness(), probe.refresh(), probe.read()
tell(before=before, after=descriptors())
""")
    assert told["before"] == told["after"]


@ON_LINUX
def test_importing_the_probe_loads_nothing_heavy():
    [told] = run(
        'tell(loaded=[n for n in ("psutil", "tracemalloc", "ctypes") if n in sys.modules])'
    )
    assert "tracemalloc" not in told["loaded"]


# --- the C library ------------------------------------------------------------------------------


def is_glibc():
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    return False


ON_GLIBC = pytest.mark.skipif(not is_glibc(), reason="only glibc has these calls")


@ON_GLIBC
def test_what_the_c_library_has_given_out_is_seen():
    before, after = run("""
import time
for mib in (0, 64):
    kept = written(mib) if mib else None
    tell(malloc=MemoryProbe().witness().malloc_bytes)
""")
    assert 60 * MIB < after["malloc"] - before["malloc"] < 80 * MIB


@ON_GLIBC
def test_trim_gives_back_what_lies_between_blocks_in_use():
    [told] = run("""
probe = MemoryProbe()
blocks = [bytes(50_000) for _ in range(2_000)]
del blocks[1::2]  # holes: free(3) gives only the end of the heap back
full = probe.sample().rss_bytes
free = probe.read().malloc.free_bytes
given_back = probe.trim()
tell(given_back=given_back, free=free, less=full - probe.sample().rss_bytes, again=probe.trim())
""")
    assert told["free"] > 40 * MIB
    assert told["given_back"] > 30 * MIB
    assert abs(told["given_back"] - told["less"]) < 5 * MIB
    assert told["again"] < MIB

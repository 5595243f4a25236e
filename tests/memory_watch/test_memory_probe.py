"""The probe over trees of files in all layouts, and what it keeps of costly figures."""

import asyncio
import errno
import json
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.memory_watch.control_groups import FILES
from perf_middleware.memory_watch.probes import allocator, elsewhere, files, memory
from perf_middleware.memory_watch.probes.allocator import Allocator
from perf_middleware.memory_watch.probes.kept import REST, Kept
from perf_middleware.memory_watch.probes.memory import LIMITS_EVERY_US, MemoryProbe
from perf_middleware.memory_watch.reading import MallocMemory
from perf_middleware.resident import UNKNOWN

MIB = 1 << 20
US = 1_000_000

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n"
UNIFIED_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
NO_LIMIT_V1 = 9223372036854771712

PROC = {
    "proc/self/statm": "100000 25600 512 5 0 30000 0\n",  # 100 MiB in RAM, with pages of 4 KiB
    "proc/self/status": "VmHWM:\t  204800 kB\nVmSize:\t  400000 kB\nRssAnon:\t   81920 kB\n"
    "RssFile:\t   20480 kB\nRssShmem:\t       0 kB\nVmData:\t  119000 kB\nVmSwap:\t    1024 kB\n",
    "proc/self/smaps_rollup": "558a-7fff ---p 00000000 00:00 0   [rollup]\nRss: 102400 kB\n"
    "Pss:   92160 kB\nPss_Anon:  3 kB\nPrivate_Clean:  10240 kB\nPrivate_Dirty:  81920 kB\n",
    "proc/meminfo": "MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable: 786432 kB\n"
    "SwapTotal: 2048 kB\nSwapFree: 1024 kB\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=667\n",
}


class FakeClock:
    def __init__(self):
        self.now_us = 1_000_000

    def __call__(self):
        return self.now_us


def write(root, texts):
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v2(directory, *, used, limit="max", high="max", cache=0):
    return {
        f"{directory}/memory.current": f"{used + cache}\n",
        f"{directory}/memory.max": f"{limit}\n",
        f"{directory}/memory.high": f"{high}\n",
        f"{directory}/memory.stat": f"anon 1\ninactive_file {cache}\n",
        f"{directory}/memory.events": "high 0\nmax 4\noom 1\noom_kill 1\n",
        f"{directory}/memory.pressure": "some avg10=2.00 avg60=1.00 avg300=0.00 total=5000000\n"
        "full avg10=1.00 avg60=0.50 avg300=0.00 total=2500000\n",
    }


def v1(directory, *, used, limit=NO_LIMIT_V1, cache=0, above=NO_LIMIT_V1):
    return {
        f"{directory}/memory.usage_in_bytes": f"{used + cache}\n",
        f"{directory}/memory.limit_in_bytes": f"{limit}\n",
        f"{directory}/memory.stat": f"inactive_file 5\nhierarchical_memory_limit {above}\n"
        f"total_inactive_file {cache}\n",
        f"{directory}/memory.failcnt": "7\n",
        f"{directory}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    }


def of_self(cgroup, mountinfo):
    return {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo}


FS = "sys/fs/cgroup"
LAYOUTS = [
    pytest.param(
        of_self("0::/pod/web\n", V2_MOUNT)
        | v2(f"{FS}/pod/web", used=100, limit=400, cache=300)
        | v2(f"{FS}/pod", used=300, limit=500),
        [("/pod/web", 100, 400), ("/pod", 300, 500)], "/pod",
        id="v2, nested: the parent is tighter",
    ),
    pytest.param(
        of_self("0::/web\n", V2_MOUNT) | v2(f"{FS}/web", used=100, limit=400, high=200),
        [("/web", 100, 200)], "/web",
        id="v2, slowed down before it is killed",
    ),
    pytest.param(
        of_self("0::/\n", V2_MOUNT) | v2(FS, used=100, limit=400),
        [("/", 100, 400)], "/",
        id="v2, a container with its own root",
    ),
    pytest.param(
        of_self("0::/docker/0a1b\n", V2_MOUNT) | v2(FS, used=100, limit=400),
        [("/", 100, 400)], "/",
        id="v2, the path is the host's and leads nowhere",
    ),
    pytest.param(
        of_self("4:memory:/web\n1:cpu:/\n", V1_MOUNT)
        | v1(f"{FS}/memory/web", used=100, limit=400, cache=900)
        | v1(f"{FS}/memory", used=5000),
        [("/web", 100, 400)], "/web",
        id="v1",
    ),
    pytest.param(
        of_self("4:memory:/docker/0a1b\n", V1_MOUNT.replace(" / ", " /docker/0a1b "))
        | v1(f"{FS}/memory", used=100, above=300),
        [("/docker/0a1b", 100, 300)], "/docker/0a1b",
        id="v1, a limit above the container alone",
    ),
    pytest.param(
        of_self("4:memory:/web\n0::/user\n", V1_MOUNT + UNIFIED_MOUNT)
        | v1(f"{FS}/memory/web", used=100, limit=400)
        | {f"{FS}/unified/user/memory.pressure": v2("", used=0)["/memory.pressure"]},
        [("/web", 100, 400)], "/web",
        id="both: limits of v1 beside a v2 tree",
    ),
    pytest.param(
        of_self("0::/web\n", V2_MOUNT) | v2(f"{FS}/web", used=100),
        [], "/web",
        id="no limit: the own group's figures",
    ),
    pytest.param(
        of_self("0::/web\n", V2_MOUNT + V2_MOUNT.replace("/sys/fs/cgroup", "/mnt/again"))
        | v2(f"{FS}/web", used=100, limit=400) | v2("mnt/again/web", used=100, limit=400),
        [("/web", 100, 400)], "/web",
        id="one tree mounted twice",
    ),
    pytest.param({}, [], None, id="no control groups"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "bounds", "tightest"), LAYOUTS)
def test_every_layout_gives_its_bounds_and_the_tightest_group(tmp_path, texts, bounds, tightest):
    write(tmp_path, PROC | texts)
    probe = MemoryProbe(root=tmp_path, clock=FakeClock())
    sample = probe.sample()
    found = [one for one in sample.bounds if one.name == "cgroup"]
    assert [(one.where, one.used_bytes, one.limit_bytes) for one in found] == bounds
    group = probe.read().group
    assert (None if group is None else group.path) == tightest


@pytest.mark.parametrize(
    ("texts", "where", "total_us"),
    [
        pytest.param(LAYOUTS[0].values[0], "/pod", 5_000_000, id="the tightest group's"),
        pytest.param(LAYOUTS[6].values[0], "/user", 5_000_000, id="beside v1, the v2 group's"),
        pytest.param({}, "", 667, id="without groups, the system's"),
    ],
)
def test_pressure_is_as_near_as_the_kernel_tells(tmp_path, texts, where, total_us):
    write(tmp_path, PROC | texts)
    pressure = MemoryProbe(root=tmp_path).read().pressure
    assert (pressure.where, pressure.some.total_us) == (where, total_us)


def test_a_sample_is_rss_and_every_bound(tmp_path, monkeypatch):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    monkeypatch.setattr(memory, "_resource_limits", lambda: (400 * MIB, 800 * MIB))
    free = MallocMemory(used_bytes=9, free_bytes=4096)
    monkeypatch.setattr(memory, "load_allocator", lambda: Allocator(figures=lambda: free))
    clock = FakeClock()
    sample = MemoryProbe(limit_bytes=200 * MIB, root=tmp_path, clock=clock).sample()
    page = memory.os.sysconf("SC_PAGE_SIZE")
    assert (sample.at_us, sample.rss_bytes) == (clock.now_us, 25600 * page)
    assert [(one.name, one.used_bytes, one.limit_bytes) for one in sample.bounds] == [
        ("configured", 25600 * page, 200 * MIB),
        ("cgroup", 100, 400),
        ("cgroup", 300, 500),
        ("rlimit_data", 30000 * page - 2048, 400 * MIB),
        ("rlimit_as", 100000 * page - 2048, 800 * MIB),
        ("system", 25600 * page, 768 * MIB + 25600 * page),
    ]
    assert sample.tightest.where == "/pod"


def test_limits_that_change_while_it_runs_are_seen(tmp_path):
    clock = FakeClock()
    write(tmp_path, PROC | of_self("0::/web\n", V2_MOUNT) | v2(f"{FS}/web", used=100, limit=300))
    probe = MemoryProbe(root=tmp_path, clock=clock)
    assert probe.sample().share == 100 / 300
    write(tmp_path, {f"{FS}/web/memory.max": "200\n", f"{FS}/web/memory.current": "150\n"})
    clock.now_us += LIMITS_EVERY_US - 1
    assert probe.sample().share == 150 / 300  # use is of now, the limit is not yet due
    clock.now_us += 1
    assert probe.sample().share == 150 / 200
    write(tmp_path, of_self("0::/\n", V2_MOUNT) | v2(FS, used=90, limit=100))
    clock.now_us += LIMITS_EVERY_US
    assert probe.sample().tightest.where == "/"  # moved into another group


def test_a_group_that_vanishes_between_two_looks_is_left_out(tmp_path):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    probe = MemoryProbe(root=tmp_path, clock=FakeClock())
    probe.sample()
    (tmp_path / FS / "pod/memory.current").unlink()
    assert [one.where for one in probe.sample().bounds] == ["/pod/web", ""]
    for name in ("memory.current", "memory.stat"):
        (tmp_path / FS / "pod/web" / name).unlink()
    sample = probe.sample()
    assert [one.name for one in sample.bounds] == ["system"]
    assert sample.rss_bytes > 0


@pytest.mark.parametrize("garbage", ["", "\n", "max", "-1\n", "\0\x01", "a b c 1 2 3\n" * 50])
def test_files_that_say_something_else_leave_their_bound_out(tmp_path, monkeypatch, garbage):
    texts = PROC | LAYOUTS[0].values[0]
    write(tmp_path, {name: garbage for name in texts if "/self/cgroup" not in name})
    write(tmp_path, {"proc/self/cgroup": texts["proc/self/cgroup"]})
    monkeypatch.setattr(memory, "asked_resident_bytes", lambda: UNKNOWN)
    monkeypatch.setattr(elsewhere, "system_memory", lambda: None)
    probe = MemoryProbe(root=tmp_path)
    assert probe.sample().bounds == ()
    assert probe.witness().anonymous_bytes == 0
    assert probe.read().group is None
    assert json.dumps(probe.status())
    assert list(probe.families())


BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"0::/", b"4:memory:/", b"a", b" ", b"\n", b"max", b"9" * 30, b"7",
                              b":", b"inactive_file ", b"MemTotal: ", b"MemAvailable: ", b" kB\n"]),
             max_size=30).map(b"".join),
)  # fmt: skip
PLACES = sorted(
    {*PROC, "proc/self/cgroup", "proc/self/mountinfo"}
    | {f"{FS}/{name}" for name in (*FILES[2].all_names(), "memory.pressure")}
    | {f"{FS}/memory/{name}" for name in FILES[1].all_names()}
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from(PLACES), BYTES))
def test_any_bytes_in_any_file_are_figures_or_nothing(contents):
    with TemporaryDirectory() as directory:
        root = Path(directory)
        write(root, of_self("0::/\n4:memory:/\n", V2_MOUNT + V1_MOUNT) | v2(FS, used=1, limit=2))
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        probe = MemoryProbe(root=root)
        assert all(bound.share >= 0 for bound in probe.sample().bounds)
        assert probe.witness().anonymous_bytes >= 0
        assert json.dumps(probe.status())
        assert list(probe.families())


def test_a_witness_tells_what_the_process_wrote_and_what_it_was_told(tmp_path, monkeypatch):
    write(tmp_path, PROC)
    figures = MallocMemory(used_bytes=7, free_bytes=1)
    monkeypatch.setattr(memory, "load_allocator", lambda: Allocator(figures=lambda: figures))
    clock = FakeClock()
    probe = MemoryProbe(
        root=tmp_path, clock=clock, known_bytes=lambda: 5 * MIB, requests=lambda: 12
    )
    witness = probe.witness()
    assert (witness.at_us, witness.anonymous_bytes) == (clock.now_us, 81 * MIB)  # 80 and 1 in swap
    assert (witness.malloc_bytes, witness.known_bytes, witness.requests) == (7, 5 * MIB, 12)
    assert witness.blocks > 1_000


def test_an_observer_that_fails_is_counted_and_logged_once(tmp_path, caplog):
    write(tmp_path, PROC)
    answers = iter([ZeroDivisionError("gone"), ZeroDivisionError("gone"), 3, ValueError("again")])

    def known():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    probe = MemoryProbe(root=tmp_path, known_bytes=known)
    assert [probe.witness().known_bytes for _ in range(4)] == [0, 0, 3, 0]
    assert len(caplog.records) == 2  # once for each time that it began to fail
    assert probe.status()["failures"] == 3
    probe.reset_counts()
    assert probe.status()["failures"] == 0


def test_a_reading_is_everything_with_its_unit(tmp_path, monkeypatch):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    figures = MallocMemory(used_bytes=7, free_bytes=1)
    monkeypatch.setattr(memory, "load_allocator", lambda: Allocator(figures=lambda: figures))
    reading = MemoryProbe(root=tmp_path, clock=FakeClock()).read()
    process = reading.process
    assert (process.peak_bytes, process.swapped_bytes) == (200 * MIB, MIB)
    assert (process.anonymous_bytes, process.file_bytes, process.shared_bytes) == (
        80 * MIB, 20 * MIB, 0,
    )  # fmt: skip
    assert (process.proportional_bytes, process.unique_bytes) == (90 * MIB, 90 * MIB)
    assert (process.virtual_bytes, process.data_bytes) == (400_000 * 1024, 119_000 * 1024)
    assert reading.system.swap_used_bytes == MIB
    assert reading.malloc == figures
    assert reading.gc.is_enabled
    assert len(reading.gc.thresholds) == len(reading.gc.pending) == 3
    assert reading.sample.tightest.where == "/pod"


def values(probe):
    return {
        family.name + (f"{{{point.labels.text}}}" if point.labels.text else ""): point.value
        for family in probe.families()
        for point in family.points
    }


def test_figures_are_families_with_their_unit(tmp_path):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    probe = MemoryProbe(limit_bytes=2**40, root=tmp_path)
    found = values(probe)
    assert found['perf_memory_bound_used_bytes{bound="cgroup"}'] == 300  # of both the tighter
    assert found['perf_memory_bound_limit_bytes{bound="cgroup"}'] == 500
    assert found['perf_memory_bound_limit_bytes{bound="configured"}'] == 2**40
    assert found["perf_memory_used_share"] == 0.6
    assert found['perf_memory_resident_bytes{kind="anonymous"}'] == 80 * MIB
    assert found["perf_memory_peak_bytes"] == 200 * MIB
    assert found["perf_memory_proportional_bytes"] == found["perf_memory_unique_bytes"] == 90 * MIB
    assert found['perf_memory_group_events{event="oom_kill"}'] == 1
    assert found['perf_memory_pressure_seconds{kind="full"}'] == 2.5
    assert found['perf_memory_pressure_share{kind="some",window="10s"}'] == 0.02
    assert found["perf_memory_system_available_bytes"] == 768 * MIB
    assert found["perf_memory_probe_failures"] == 0


def test_what_workers_see_together_is_not_added_up(tmp_path):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    for family in MemoryProbe(root=tmp_path).families():
        if "_group_" in family.name or "_system_" in family.name or "_pressure_" in family.name:
            assert family.across == "max", family.name


def test_figures_of_the_process_metrics_are_not_repeated():
    from perf_middleware.metrics.probes.gc import GcProbe
    from perf_middleware.metrics.probes.process import ProcessProbe

    theirs = {family.name for probe in (ProcessProbe(), GcProbe()) for family in probe.families()}
    assert not theirs & {family.name for family in MemoryProbe().families()}


def test_a_status_is_json_with_the_tightest_bound(tmp_path):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    picture = json.loads(json.dumps(MemoryProbe(root=tmp_path).status()))
    assert (picture["tightest"], picture["share"]) == ("cgroup", 0.6)
    assert picture["bounds"][1]["where"] == "/pod"
    assert picture["group"]["events"]["oom_kill"] == 1


def test_scrapes_cannot_hammer_the_kernel(tmp_path):
    write(tmp_path, PROC)
    clock = FakeClock()
    probe = MemoryProbe(root=tmp_path, clock=clock)
    first = probe.read()
    clock.now_us += US - 1
    assert probe.read() is first
    clock.now_us += 1
    assert probe.read() is not first


def test_a_costly_figure_rests_a_thousand_times_what_it_took():
    clock, reads = FakeClock(), []

    def slow():
        reads.append(clock.now_us)
        clock.now_us += 20_000
        return len(reads)

    kept = Kept(slow, every_us=5 * US, clock=clock)
    assert kept.newest() == 1
    assert kept.took_us == 20_000
    clock.now_us += 20_000 * REST - 1
    assert kept.newest() == 1
    clock.now_us += 1
    assert kept.kept() == 1  # due, but a thread that may wait has as long again to read it
    assert kept.newest() == 2
    clock.now_us += 2 * 20_000 * REST
    assert kept.kept() == 3  # nobody did


def test_a_cheap_figure_rests_its_own_time():
    clock, reads = FakeClock(), iter(range(100))
    kept = Kept(lambda: next(reads), every_us=5 * US, clock=clock)
    assert [kept.newest(), kept.newest()] == [0, 0]
    clock.now_us += 5 * US
    assert kept.newest() == 1


def test_one_thread_reads_and_another_does_not_wait():
    inside, go_on = threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert go_on.wait(5)
        return 7

    kept = Kept(slow, every_us=US, clock=FakeClock())
    reader = threading.Thread(target=kept.newest)
    reader.start()
    assert inside.wait(5)
    assert kept.newest() is None
    go_on.set()
    reader.join(5)
    assert kept.newest() == 7


def test_a_costly_figure_that_fails_does_not_lock_others_out():
    kept = Kept(lambda: 1 // 0, every_us=0, clock=FakeClock())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            kept.newest()


def test_without_a_descriptor_left_what_was_read_last_holds(tmp_path, monkeypatch):
    write(tmp_path, PROC | LAYOUTS[0].values[0])
    clock = FakeClock()
    probe = MemoryProbe(root=tmp_path, clock=clock)
    sample, witness, reading = probe.sample(), probe.witness(), probe.read()

    def full(path, flags):
        raise OSError(errno.EMFILE, "Too many open files")

    clock.now_us += 60 * US
    fresh = MemoryProbe(root=tmp_path, clock=clock)
    monkeypatch.setattr(files.os, "open", full)
    later = probe.sample()
    assert (later.bounds, later.rss_bytes) == (sample.bounds, sample.rss_bytes)
    assert later.at_us == clock.now_us
    assert probe.witness().anonymous_bytes == witness.anonymous_bytes
    assert probe.read().process == reading.process
    assert fresh.sample().bounds == ()  # nothing was ever read
    assert fresh.read().process.rss_bytes == fresh.witness().anonymous_bytes == 0


def test_where_there_is_no_proc_psutil_tells(tmp_path):
    probe = MemoryProbe(limit_bytes=2**40, root=tmp_path)  # an empty tree is as macOS or Windows
    sample = probe.sample()
    assert sample.rss_bytes > MIB
    assert [one.name for one in sample.bounds] == ["configured", "system"]
    assert probe.witness().anonymous_bytes > MIB
    reading = probe.read()
    assert reading.process.unique_bytes is reading.group is reading.pressure is None
    assert reading.system.total_bytes > MIB
    assert "perf_memory_used_share" in values(probe)


def test_where_nobody_tells_figures_are_absent(tmp_path, monkeypatch):
    import psutil

    def fails(*_):
        raise NotImplementedError

    for name in ("Process", "virtual_memory"):
        monkeypatch.setattr(psutil, name, fails)
    monkeypatch.setattr(memory, "load_allocator", Allocator)
    probe = MemoryProbe(root=tmp_path)
    assert probe.sample().bounds == ()
    assert probe.witness().malloc_bytes is None
    assert probe.trim() is None
    assert "perf_memory_used_share" not in values(probe)


class FakeCtypes:
    """glibc, or an older one; names of the program read as `seen_at`, and `counts` what it takes.

    `spoilt` is by how much other threads take more in each try, before it is as it was.
    """

    c_void_p = c_size_t = c_int = None
    Structure = object

    def __init__(self, *, seen_at="libc", counts=True, lacks=(), spoilt=()):
        self._seen_at, self._counts, self._lacks = seen_at, counts, lacks
        self._spoilt = iter(spoilt)
        self.taken = {}

    def CDLL(self, name):  # noqa: N802 - as ctypes calls it
        def malloc(size):
            self.taken[size] = size + next(self._spoilt, 0)
            return size

        def mallinfo2():
            used = sum(self.taken.values()) if self._counts else 0
            return SimpleNamespace(uordblks=used, hblkhd=0, fordblks=0)

        def free(size):
            del self.taken[size]

        def malloc_trim(pad):
            return pad

        malloc.address = "libc" if name else self._seen_at
        calls = (malloc, free, mallinfo2, malloc_trim)
        return SimpleNamespace(
            **{call.__name__: call for call in calls if call.__name__ not in self._lacks}
        )

    def cast(self, function, kind):
        return SimpleNamespace(value=function.address)


WITHOUT = FakeCtypes(lacks=["mallinfo2", "malloc_trim"])


@pytest.mark.parametrize(
    ("ctypes", "has_figures", "trims"),
    [
        pytest.param(FakeCtypes(), True, True, id="glibc"),
        pytest.param(FakeCtypes(seen_at="program"), True, True, id="seen in the program"),
        pytest.param(FakeCtypes(seen_at="program", spoilt=[-9, 9_999]), True, True, id="threads"),
        pytest.param(FakeCtypes(lacks=["mallinfo2"]), False, True, id="an older glibc"),
        pytest.param(WITHOUT, False, False, id="another C library"),
        pytest.param(FakeCtypes(seen_at="program", lacks=["mallinfo2"]), False, False, id="who?"),
        pytest.param(FakeCtypes(seen_at="jemalloc", counts=False), False, False, id="jemalloc"),
        pytest.param(FakeCtypes(seen_at="program", counts=False), False, False, id="seen so, too"),
    ],
)
def test_figures_and_trim_are_those_of_the_allocator_in_use(ctypes, has_figures, trims):
    found = allocator._glibc(ctypes)
    assert (found.figures is not None, found.trim is not None) == (has_figures, trims)
    assert not ctypes.taken


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_platforms_have_no_such_allocator(monkeypatch, platform):
    monkeypatch.setattr(allocator.sys, "platform", platform)
    assert allocator.load_allocator() == Allocator()


def test_a_limit_is_a_number_of_bytes():
    with pytest.raises(ValueError, match="limit_bytes"):
        MemoryProbe(limit_bytes=0)


def test_looks_go_on_while_the_event_loop_is_stuck():
    probe, looks, done = MemoryProbe(), [], threading.Event()

    def watch():
        while not done.wait(0.01):
            looks.append(probe.sample())

    async def stuck():
        await asyncio.sleep(0)
        before = len(looks)
        time.sleep(0.2)
        return len(looks) - before

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert asyncio.run(stuck()) > 1
    finally:
        done.set()
        watcher.join()
    assert all(look.rss_bytes > 0 for look in looks)


def test_any_threads_may_ask_at_once():
    probe, failed = MemoryProbe(), []

    def ask():
        try:
            for _ in range(30):
                probe.sample(), probe.witness(), probe.refresh(), list(probe.families())
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_caches_that_shrink_leave_no_height_beside_an_older_figure_of_malloc(tmp_path, monkeypatch):
    write(tmp_path, PROC)
    used, known = [100 * MIB], [50 * MIB]
    figures = lambda: MallocMemory(used_bytes=used[0], free_bytes=0)  # noqa: E731
    monkeypatch.setattr(memory, "load_allocator", lambda: Allocator(figures=figures))
    clock = FakeClock()
    probe = MemoryProbe(root=tmp_path, clock=clock, known_bytes=lambda: known[0])

    def others_have():
        witness = probe.witness()
        return (witness.malloc_bytes - witness.known_bytes) // MIB

    assert others_have() == 50
    clock.now_us += memory.MALLOC_EVERY_US // 2
    used[0], known[0] = 60 * MIB, 10 * MIB
    assert others_have() == 50  # malloc is not yet due
    clock.now_us += memory.MALLOC_EVERY_US
    assert others_have() == 50
    used[0] = 70 * MIB
    clock.now_us += memory.MALLOC_EVERY_US
    assert others_have() == 60  # what is no cache has grown


def test_malloc_that_is_read_fast_is_new_at_each_look(tmp_path, monkeypatch):
    """A figure of some seconds ago makes stairs of a cache that fills, which look like a leak."""
    used = [0]
    figures = lambda: MallocMemory(used_bytes=used[0], free_bytes=0)  # noqa: E731
    monkeypatch.setattr(memory, "load_allocator", lambda: Allocator(figures=figures))
    clock = FakeClock()
    probe = MemoryProbe(root=tmp_path, clock=clock)
    for second in range(10):
        used[0] = second * MIB
        assert probe.witness().malloc_bytes == second * MIB
        clock.now_us += 1_000_000


def test_malloc_that_is_read_slowly_takes_no_more_than_a_thousandth_of_the_time(
    tmp_path, monkeypatch
):
    clock, reads = FakeClock(), []

    def figures():
        reads.append(clock.now_us)
        clock.now_us += 8_000
        return MallocMemory(used_bytes=0, free_bytes=0)

    monkeypatch.setattr(memory, "load_allocator", lambda: Allocator(figures=figures))
    probe = MemoryProbe(root=tmp_path, clock=clock)
    for _ in range(40):
        probe.witness()
        clock.now_us += 1_000_000
    assert len(reads) in range(4, 6)

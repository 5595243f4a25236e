import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.to_thread
import psutil
import pytest

from perf_middleware.metrics.probes.process import ProcessProbe, threadpool_families


class FakeClock:
    def __init__(self):
        self.now_us = 0

    def __call__(self):
        return self.now_us


def values_of(families):
    return {
        (family.name, point.labels.text): point.value
        for family in families
        for point in family.points
    }


def test_the_figures_are_this_processs():
    values = values_of(ProcessProbe().families())
    assert values["perf_process_cpu_seconds", 'mode="user"'] > 0
    assert values["perf_process_resident_memory_bytes", ""] > 1_000_000
    assert (
        values["perf_process_virtual_memory_bytes", ""]
        >= values["perf_process_resident_memory_bytes", ""]
    )
    assert values["perf_process_threads", ""] >= 1
    assert values["perf_process_open_fds", ""] >= 3
    assert values["perf_process_max_fds", ""] >= values["perf_process_open_fds", ""]
    assert ("perf_process_context_switches", 'kind="voluntary"') in values
    assert abs(values["perf_process_start_time_seconds", ""] - time.time()) < 86_400
    assert 0 < values["perf_system_usable_cpus", ""] <= (os.cpu_count() or 1)


def test_each_figure_combines_over_workers_as_its_meaning_demands():
    across = {family.name: (family.kind, family.across) for family in ProcessProbe().families()}
    assert across["perf_process_cpu_seconds"] == ("counter", "sum")
    assert across["perf_process_resident_memory_bytes"] == ("gauge", "each")
    assert across["perf_system_network_received_bytes"] == ("counter", "max")
    assert across["perf_system_usable_cpus"] == ("gauge", "max")


def test_a_scrape_within_a_second_reads_nothing(monkeypatch):
    clock = FakeClock()
    probe = ProcessProbe(kept_s=1.0, clock=clock)
    first = values_of(probe.families())
    reads = []
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda p: reads.append(1) or real(p))
    clock.now_us = 999_999
    assert values_of(probe.families()) == first
    assert not reads
    clock.now_us = 1_000_000
    list(probe.families())
    assert reads


@pytest.mark.parametrize(
    "error",
    [
        psutil.AccessDenied(),
        psutil.NoSuchProcess(1),
        NotImplementedError(),
        OSError(),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_figure_that_is_forbidden_is_absent_and_the_others_stay(monkeypatch, error):
    def refuse(_):
        raise error

    monkeypatch.setattr(psutil.Process, "io_counters", refuse)
    names = {family.name for family in ProcessProbe().families()}
    assert "perf_process_disk_read_bytes" not in names
    assert "perf_process_resident_memory_bytes" in names


def test_a_figure_that_the_platform_lacks_is_absent(monkeypatch):
    monkeypatch.delattr(psutil.Process, "num_fds")
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: None)
    names = {family.name for family in ProcessProbe().families()}
    assert "perf_process_open_fds" not in names
    assert "perf_system_network_sent_bytes" not in names
    assert "perf_system_usable_cpus" in names


def test_loopback_is_no_network(monkeypatch):
    def nic(count):
        return SimpleNamespace(bytes_sent=count, bytes_recv=10 * count)

    nics = {"lo": nic(1_000), "eth0": nic(1), "eth1": nic(2)}
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: nics)
    values = values_of(ProcessProbe().families())
    assert values["perf_system_network_sent_bytes", ""] == 3
    assert values["perf_system_network_received_bytes", ""] == 30


FORKED = """
import os, sys, time
from perf_middleware.metrics.probes.process import ProcessProbe
probe = ProcessProbe(kept_s=3600)

def started():
    (family,) = [f for f in probe.families() if f.name == "perf_process_start_time_seconds"]
    return family.points[0].value

before = started()
time.sleep(0.2)
pid = os.fork()
if pid == 0:
    os._exit(0 if started() > before else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_worker_that_was_forked_after_install_reads_itself():
    root = Path(__file__).parents[2]  # `-c` looks for modules where it runs
    done = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=root, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_thread_pool_is_read_inside_the_loop(backend):
    release, entered = threading.Event(), threading.Event()

    def sync_endpoint():
        entered.set()
        release.wait(60)

    async def scenario():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, sync_endpoint)
            while not entered.is_set():
                await anyio.sleep(0.01)
            busy = values_of(threadpool_families())
            release.set()
        return busy

    busy = anyio.run(scenario, backend=backend)
    assert busy["perf_threadpool_in_use", ""] == 1
    assert busy["perf_threadpool_limit", ""] == 40
    assert busy["perf_threadpool_waiting", ""] == 0


def test_outside_a_loop_the_thread_pool_is_absent():
    assert list(threadpool_families()) == []
    assert not [f for f in ProcessProbe().families() if f.name.startswith("perf_threadpool")]


def test_a_negative_keeping_time_is_refused():
    with pytest.raises(ValueError, match="kept_s"):
        ProcessProbe(kept_s=-1)

from pathlib import Path

import anyio
import pytest

from perf_middleware.families import Family
from perf_middleware.metrics.probes.gc import GcProbe
from perf_middleware.metrics.probes.loop import LoopProbe
from perf_middleware.metrics.probes.process import ProcessProbe

DOCS = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")


def families() -> list[Family]:
    async def inside_a_loop():
        # What was never measured has no figures.
        loop, gc = LoopProbe(interval_s=0.01), GcProbe()
        async with anyio.create_task_group() as group:

            class Tasks:
                def start(self, name, run):
                    group.start_soon(run)

            await loop.open(Tasks())
            await gc.open(Tasks())
            await anyio.sleep(0.1)
            await loop.close()
            await gc.close()
        return [family for probe in (loop, gc, ProcessProbe()) for family in probe.families()]

    return anyio.run(inside_a_loop)


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_figure_is_documented_under_the_name_that_scrapers_see(family):
    shown = f"{family.name}_total" if family.kind == "counter" else family.name
    assert f"`{shown}`" in DOCS or f"`{shown}{{" in DOCS
    assert shown.startswith("perf_")
    assert family.help.endswith(".")

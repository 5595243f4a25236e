"""Every part of the report, one after the other: the figures of docs/performance.md and the README.

    python -m benchmarks.report                      # the short form, under five minutes: no growth
    python -m benchmarks.report --full --publish     # all, and the pages and pictures from it
    python -m benchmarks.report --only stacks hit    # some parts
    python -m benchmarks.report --from docs/performance.json --publish    # the pages anew

Each part runs in a process of its own: none inherits the heap of another.  Results are written as
they come.  Nothing is published of a run in which a part has failed, or of some parts only.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from benchmarks import results
from benchmarks.machine import this_machine
from benchmarks.pages import ROOT, blocks_of, filled, pictures_of
from benchmarks.parts import FORMS, Form, all_parts
from benchmarks.results import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.parts import Part

PAGES: Final = ("README.md", "docs/performance.md")
COMMITTED: Final = "docs/performance.json"
IMAGES: Final = "docs/images"
RESULTS: Final = "results.json"


def run_here(name: str, form: Form) -> Sequence[Any]:
    """The results of one part."""
    (part,) = [part for part in all_parts() if part.name == name]
    return part.run(form)


def run_apart(name: str, form: Form) -> Sequence[Any]:
    """The same in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(run_here, name, form).result()


def measured(
    parts: Sequence[Part], form: Form, out: Path, *, run_one: Callable[[str, Form], Sequence[Any]]
) -> tuple[Run, list[str]]:
    """The run, also in `out`, and the names of the parts that failed."""
    out.mkdir(parents=True, exist_ok=True)
    run = Run(form=form.name, machine=this_machine(), found={}, seconds={})
    failed = []
    for part in parts:
        began_s = perf_counter()
        print(f"\n## {part.name}\n", flush=True)
        try:
            found = run_one(part.name, form)
        except Exception as error:  # noqa: BLE001  # the others are worth their time all the same
            failed.append(part.name)
            print(f"FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        seconds = perf_counter() - began_s
        run = replace(
            run,
            found={**run.found, part.name: found},
            seconds={**run.seconds, part.name: seconds},
        )
        results.write(run, out / RESULTS)
        print(f"{part.markdown(found)}\n\n({seconds:.0f} s)", flush=True)
    return run, failed


def publish(path: Path, parts: Sequence[Part], root: Path = ROOT) -> None:
    """The pages and pictures from the results in `path`, which are kept beside the pages."""
    run = results.read(path, parts)
    blocks = blocks_of(run, parts)
    for page in PAGES:
        text = (root / page).read_text(encoding="utf-8")
        (root / page).write_text(filled(text, blocks), encoding="utf-8")
    for name, picture in pictures_of(run, parts).items():
        (root / IMAGES / name).write_text(picture, encoding="utf-8")
    if path.resolve() != (root / COMMITTED).resolve():
        (root / COMMITTED).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run and publish what is asked for; 1 where a part has failed."""
    parts = all_parts()
    names = [part.name for part in parts]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_const", dest="form", const="short")
    form.add_argument("--full", action="store_const", dest="form", const="full")
    form.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--rounds", type=int, help="of each table at most: 1 to see it run")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", metavar="DIR")
    parser.add_argument("--publish", action="store_true", help="into docs/ and the README")
    parser.set_defaults(form="short")
    options = parser.parse_args(arguments)
    if options.publish and options.only is not None:
        parser.error("some parts only are not published: they would not be of one run")
    source = options.source or options.out / RESULTS
    if options.source is None:
        chosen = FORMS[options.form]
        if options.rounds is not None:
            extent = replace(chosen.evictions, rounds=min(options.rounds, chosen.evictions.rounds))
            chosen = replace(
                chosen,
                name="cut" if chosen.name == "full" else chosen.name,
                rounds=options.rounds,
                other_rounds=min(options.rounds, chosen.other_rounds),
                evictions=extent,
            )
        names = options.only or [name for name in names if name not in chosen.leaves_out]
        asked = [part for part in parts if part.name in names]
        _, failed = measured(asked, chosen, options.out, run_one=run_apart)
        if failed:
            print(f"\nfailed, and nothing published: {', '.join(failed)}")
            return 1
    if options.publish:
        publish(source, parts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

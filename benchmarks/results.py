"""What a run of the report has found, as JSON and back: pages are made of what was written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from benchmarks.machine import Machine
from benchmarks.runner import LoopName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.parts import Part

DIGITS = 5  # of each number that is written: far below what differs from round to round


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`found` has the results of each part that was run, `seconds` how long that took."""

    form: str
    machine: Machine
    found: Mapping[str, Sequence[Any]]
    seconds: Mapping[str, float]


def write(run: Run, path: Path) -> None:
    """The run as one JSON object."""
    parts = {
        name: {"seconds": run.seconds[name], "found": [asdict(one) for one in found]}
        for name, found in run.found.items()
    }
    written = {"form": run.form, "machine": asdict(run.machine), "parts": parts}
    path.write_text(json.dumps(_short(written), indent=1) + "\n", encoding="utf-8")


def read(path: Path, parts: Sequence[Part]) -> Run:
    """The run that is written there; of a part that is not among these nothing is read.

    Raises pydantic's ValidationError for results of another shape than those of today.
    """
    written = json.loads(path.read_text(encoding="utf-8"))
    there = {part.name: part for part in parts if part.name in written["parts"]}
    return Run(
        form=written["form"],
        machine=TypeAdapter(Machine).validate_python(written["machine"]),
        found={
            name: _reader(part.kind).validate_python(written["parts"][name]["found"])
            for name, part in there.items()
        },
        seconds={name: written["parts"][name]["seconds"] for name in there},
    )


def _reader(kind: Any) -> TypeAdapter[Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(list[kind])
    # Most modules import this name for the type checker alone.
    adapter.rebuild(_types_namespace={"LoopName": LoopName})
    return adapter


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    return value

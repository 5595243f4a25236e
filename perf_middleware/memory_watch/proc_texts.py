"""What the kernel tells in texts, as numbers: sizes in bytes, times in microseconds.

A text of another form than was expected gives None, or fewer figures; never an error: kernels
differ, containers hide files or show them empty, and a file may vanish while it is read.
Sources: proc_pid_statm(5), proc_pid_status(5), proc_pid_smaps(5), proc_meminfo(5); Linux
Documentation/accounting/psi.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.memory_watch.reading import Pressure, Stalls

if TYPE_CHECKING:
    from collections.abc import Collection

KIB: Final = 1024
_DIGITS_MAX: Final = 20  # 2**64 has as many; no figure of the kernel has more


def whole(text: str) -> int | None:
    """The whole number that `text` is, with blanks around it at most; else None."""
    text = text.strip()
    if len(text) > _DIGITS_MAX or not (text.isascii() and text.isdecimal()):
        return None
    return int(text)


@dataclass(frozen=True, slots=True)
class Statm:
    """The sizes of a process, bytes: address space, what of it is in RAM, what is private data.

    `data_bytes` is VmData and the main stack (VmStk, seldom more than 0.2 MB).
    """

    virtual_bytes: int
    rss_bytes: int
    data_bytes: int


def statm(text: str, *, page_bytes: int) -> Statm | None:
    """/proc/self/statm."""
    pages = [whole(part) for part in text.split(" ", 7)[:6]]
    if len(pages) < 6 or pages[0] is None or pages[1] is None or pages[5] is None:
        return None
    return Statm(pages[0] * page_bytes, pages[1] * page_bytes, pages[5] * page_bytes)


def sizes(text: str, names: Collection[str]) -> dict[str, int]:
    """Bytes by name of the lines `Name:   12 kB` of status, meminfo and smaps_rollup.

    Only those of `names`; the rest of the text is not read once all are found.
    """
    found: dict[str, int] = {}
    rest = text
    while rest and len(found) < len(names):
        line, _, rest = rest.partition("\n")
        name, colon, value = line.partition(":")
        if colon and name in names:
            kib = whole(value.strip().removesuffix("kB"))
            if kib is not None:
                found[name] = kib * KIB
    return found


def counts(text: str) -> dict[str, int]:
    """Numbers by name of the lines `name 12` of a group's files."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        number = whole(value)
        if name and number is not None:
            found[name] = number
    return found


def count(text: str, name: str) -> int | None:
    """The number of one such line; quick, for a long text that is read often."""
    _, found, rest = f"\n{text}".partition(f"\n{name} ")
    return whole(rest.partition("\n")[0]) if found else None


def pressure(text: str, *, where: str) -> Pressure | None:
    """memory.pressure of a group, or /proc/pressure/memory; None where it tells nothing."""
    kinds: dict[str, Stalls] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()[:5] or [""]
        figures = dict(pair.partition("=")[::2] for pair in pairs)
        total_us = whole(figures.get("total", ""))
        share_10s = _percent(figures.get("avg10", ""))
        share_60s = _percent(figures.get("avg60", ""))
        if total_us is not None and share_10s is not None and share_60s is not None:
            kinds[kind] = Stalls(total_us=total_us, share_10s=share_10s, share_60s=share_60s)
    if "some" not in kinds:
        return None
    return Pressure(where=where, some=kinds["some"], full=kinds.get("full"))


def _percent(text: str) -> float | None:
    """`12.34` as a share; None where it is not between 0 and 100."""
    before, dot, after = text.partition(".")
    units, parts = whole(before), whole(after) if dot else 0
    if units is None or parts is None or len(after) > 6:
        return None
    share = (units + parts / 10 ** len(after)) / 100
    return share if share <= 1 else None

"""Which coded bodies are remembered, so that one which is answered again and again is coded once.

    first sight    nothing but 8 bytes: its mark
    second sight   the body and its form, which was made for this answer
    from then on   the form, where the whole body is the same, byte for byte

A body is found by its mark and given by its bytes: of no request, client or path is anything known
here, so whoever gets a form has sent its very body.  A mark is of the length and of samples, for it
is made of every body, most of which never come again: 0.4 us for 20 kB, a hash over all takes 3.2.
Two bodies with one mark take each other's place.

Bounded in bytes; what was not asked for the longest goes first.
Source of the admission at second sight: Einziger, Friedman, Manes, "TinyLFU", ACM ToS 2017 (the
doorkeeper, which is all of the filter here).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Final

SEEN_SLOTS: Final = 4_096
"""Marks seen once, 32 kB: a body that comes again within some thousand others is known again."""
BODY_BYTES_MAX: Final = 1 << 20
"""Of a larger body even to compare it, 40 us for a megabyte, holds up the event loop."""
BODY_SHARE: Final = 8  # no body may take more than this part of all
ENTRY_BYTES: Final = 600  # what Python needs beside the bytes of a body and its first form
FORM_BYTES: Final = 100  # and of each form
ANY_LEVEL: Final = -1

_WHOLE_BYTES_MAX: Final = 1_024  # so far a hash over all is as cheap
_END_BYTES: Final = 128  # at both ends, where envelopes have their numbers and times
_SAMPLES_SHIFT: Final = 7  # and so many single bytes between: 2**7


class _Held:
    """One body, and by coding the level and the form."""

    __slots__ = ("body", "forms", "held_bytes")

    def __init__(self, body: bytes, forms: dict[str, tuple[int, bytes]]) -> None:
        self.body = body
        self.forms = forms
        self.held_bytes = ENTRY_BYTES + len(body)
        for _, form in forms.values():
            self.held_bytes += FORM_BYTES + len(form)


def mark_of(body: bytes) -> int:
    """64 bits, keyed for this process, that tell most bodies apart; in constant time."""
    size = len(body)
    if size <= _WHOLE_BYTES_MAX:
        return hash(body)
    between = body[_END_BYTES : -_END_BYTES : size >> _SAMPLES_SHIFT]
    return hash((size, body[:_END_BYTES] + between + body[-_END_BYTES:]))


class RepeatedBodies:
    """Up to `bytes_max` bytes of bodies that came twice, with their forms."""

    __slots__ = ("_held", "_seen", "body_bytes_max", "bytes_max", "held_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.body_bytes_max = min(BODY_BYTES_MAX, bytes_max // BODY_SHARE)
        self.held_bytes = 0
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._seen = array("q", bytes(8 * SEEN_SLOTS))

    def __len__(self) -> int:
        return len(self._held)

    def form_of(self, mark: int, body: bytes, coding: str, level: int) -> bytes | None:
        """The form of this very body in `coding`, made at `level` or a higher one."""
        held = self._held.get(mark)
        if held is None or held.body != body:
            return None
        self._held.move_to_end(mark)
        made = held.forms.get(coding)
        return made[1] if made is not None and made[0] >= level else None

    def note(self, mark: int, body: bytes, coding: str, level: int, form: bytes) -> None:
        """`body` was encoded just now: remember that, or the form where it came before."""
        before = self._held.get(mark)
        if before is None:
            slot = mark % SEEN_SLOTS
            if self._seen[slot] != mark:
                self._seen[slot] = mark
                return
        if len(body) > self.body_bytes_max:
            return
        forms = dict(before.forms) if before is not None and before.body == body else {}
        forms[coding] = level, form
        held = _Held(body, forms)
        if before is not None:
            del self._held[mark]
            self.held_bytes -= before.held_bytes
        if held.held_bytes > self.bytes_max:
            return
        self._held[mark] = held
        self.held_bytes += held.held_bytes
        self._shrink_to(self.bytes_max)

    def let_go(self, share: float) -> int:
        """Forget this share, 0 to 1, of what came longest ago; the bytes that it took."""
        before = self.held_bytes
        self._shrink_to(int(before * (1 - share)))
        return before - self.held_bytes

    def _shrink_to(self, bytes_max: int) -> None:
        while self.held_bytes > bytes_max:
            _, held = self._held.popitem(last=False)
            self.held_bytes -= held.held_bytes

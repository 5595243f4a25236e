"""Which coded bodies are remembered, so that one which is answered again and again is coded once.

    first sight    nothing but 8 bytes: its mark
    second sight   the body and its form, which was made for this answer
    from then on   the form, where the whole body is the same, byte for byte

A body is found by its mark and given by its bytes: of no request, client or path is anything known
here, so whoever gets a form has sent its very body.  A mark is of the length and of samples, for it
is made of bodies that never come again too: 0.6 us for 20 kB, a hash over all takes 3.5.  Of those
with one mark the first that repeats has the place, the others get marks of all their bytes; where
none repeats (all differ in their time alone), one in PAUSE is kept.  And while nothing at all
repeats, which is a comparison of bodies and not of marks, only one body in LOOKED_AT is looked at:
where fewer repeat than one in IN_VAIN_MAX, to look costs more than it saves.

Bounded in bytes; what was not asked for the longest goes first.  Event loops of several threads may
share it: what changes the bodies and their sum has a lock, the much that only finds has none.
Source of the admission at second sight: Einziger, Friedman, Manes, "TinyLFU", ACM ToS 2017 (the
doorkeeper, which is all of the filter here).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import Final

SEEN_SLOTS: Final = 4_096
"""Marks seen once, 32 kB: a body that comes again within some thousand others is known again."""
BODY_BYTES_MAX: Final = 1 << 20
"""Of a larger body even to compare it, 40 us for a megabyte, holds up the event loop."""
BODY_SHARE: Final = 8  # no body may take more than this part of all
ENTRY_BYTES: Final = 600  # what Python needs beside the bytes of a body and its first form
FORM_BYTES: Final = 100  # and of each form
NOTHING: Final = (None, None)  # no form, and none to keep
PAUSE: Final = 16  # bodies that are passed over where one was kept for nothing
IN_VAIN_MAX: Final = 256  # bodies that are looked at while none repeats
LOOKALIKES_MAX: Final = 4  # bodies with the mark of one that was kept, until that is for nothing
LOOKED_AT: Final = 16  # from then on one in so many
LARGE_BYTES: Final = 64 << 10  # and each from this size on, whose mark is nothing beside its coding

# Of a prime number of bodies in a row, so that what comes at a regular distance (each second, each
# sixteenth) is at all of these places in turn; cubes scatter those that are looked at.
_ROUND: Final = 257
_IS_PASSED_OVER: Final = bytes(at**3 % _ROUND >= _ROUND // LOOKED_AT for at in range(_ROUND))
_WHOLE_BYTES_MAX: Final = 1_024  # so far a hash over all is as cheap
_END_BYTES: Final = 128  # at both ends, where envelopes have their numbers and times
_SAMPLES_SHIFT: Final = 7  # and so many single bytes between: 2**7


class _Held:
    """One body, and by coding the level and the form."""

    __slots__ = ("body", "forms", "held_bytes", "lookalikes", "was_given")

    def __init__(self, body: bytes, forms: dict[str, tuple[int, bytes]]) -> None:
        self.body = body
        self.forms = forms
        self.was_given = False
        self.lookalikes = 0
        self.held_bytes = ENTRY_BYTES + len(body)
        for _, form in forms.values():
            self.held_bytes += FORM_BYTES + len(form)


def mark_of(body: bytes) -> int:
    """64 bits, keyed for this process, that tell most bodies apart; in constant time."""
    size = len(body)
    if size <= _WHOLE_BYTES_MAX:
        return hash(body)
    between = body[_END_BYTES : -_END_BYTES : size >> _SAMPLES_SHIFT]
    return hash((size, body[:_END_BYTES], between, body[-_END_BYTES:]))


class RepeatedBodies:
    """Up to `bytes_max` bytes of bodies that came twice, with their forms."""

    __slots__ = (
        "_held",
        "_in_vain",
        "_lock",
        "_pauses",
        "_seen",
        "body_bytes_max",
        "bytes_max",
        "held_bytes",
    )

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.body_bytes_max = min(BODY_BYTES_MAX, bytes_max // BODY_SHARE)
        self.held_bytes = 0
        self._in_vain = 0  # bodies since one has repeated
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._lock = Lock()
        self._seen = array("q", bytes(8 * SEEN_SLOTS))
        self._pauses = bytearray(SEEN_SLOTS)

    def __len__(self) -> int:
        return len(self._held)

    def meet(self, body: bytes, coding: str, level: int) -> tuple[bytes | None, int | None]:
        """The form of this very body in `coding`, made at `level` or a higher one.

        Where there is none, the mark to `keep` the one with that is made now, if that is of use.
        """
        in_vain = self._in_vain = self._in_vain + 1
        size = len(body)
        if in_vain > IN_VAIN_MAX and _IS_PASSED_OVER[in_vain % _ROUND] and size < LARGE_BYTES:
            return NOTHING
        if size > self.body_bytes_max:
            return NOTHING
        mark = mark_of(body)
        held = self._held.get(mark)
        if held is not None and held.body != body:
            self._note_lookalike(mark, held)
            if not held.was_given:
                return NOTHING
            # What repeats keeps its place, and its lookalikes are told apart by all their bytes.
            mark = hash((mark, body))
            held = self._held.get(mark)
            if held is not None and held.body != body:
                return NOTHING
        if held is None:
            return (None, mark) if self._is_awaited(mark) else NOTHING
        self._in_vain = 0
        with suppress(KeyError):  # let go by the event loop of another thread
            self._held.move_to_end(mark)
        held.was_given = True
        held.lookalikes = 0
        made = held.forms.get(coding)
        if made is not None and made[0] >= level:
            return made[1], None
        return None, mark

    def keep(self, mark: int, body: bytes, coding: str, level: int, form: bytes) -> None:
        """The form that was made for a body, whose mark `meet` gave."""
        with self._lock:
            before = self._held.get(mark)
            forms = before.forms if before is not None and before.body == body else {}
            held = _Held(body, forms | {coding: (level, form)})
            held.was_given = bool(forms)  # it came again, in whatever coding
            self._let_go_locked(mark)
            if held.held_bytes <= self.bytes_max:
                self._held[mark] = held
                self.held_bytes += held.held_bytes
                self._shrink_locked(self.bytes_max)

    def _note_lookalike(self, mark: int, held: _Held) -> None:
        """One more body has the mark of what is `held`; after too many that repeats no more."""
        held.lookalikes += 1
        if held.lookalikes >= (IN_VAIN_MAX if held.was_given else LOOKALIKES_MAX):
            with self._lock:
                self._let_go_locked(mark)
            if not held.was_given:
                self._pauses[mark % SEEN_SLOTS] = PAUSE

    def _is_awaited(self, mark: int) -> bool:
        """Whether such a body came before, and none of late was kept for nothing."""
        slot = mark % SEEN_SLOTS
        if self._seen[slot] != mark:
            self._seen[slot] = mark
            self._pauses[slot] = 0
        elif self._pauses[slot]:
            self._pauses[slot] -= 1
        else:
            return True
        return False

    def shrink(self, share: float) -> int:
        """Forget this share, 0 to 1, of what came longest ago; the bytes that it took."""
        with self._lock:
            before = self.held_bytes
            self._shrink_locked(int(before * (1 - share)))
            return before - self.held_bytes

    def _shrink_locked(self, bytes_max: int) -> None:
        while self.held_bytes > bytes_max:
            self.held_bytes -= self._held.popitem(last=False)[1].held_bytes

    def _let_go_locked(self, mark: int) -> None:
        held = self._held.pop(mark, None)
        if held is not None:
            self.held_bytes -= held.held_bytes

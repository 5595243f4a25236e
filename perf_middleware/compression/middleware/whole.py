"""A whole body, encoded while its client waits: here, or a large one in a thread."""

from __future__ import annotations

from functools import partial
from secrets import randbelow
from typing import TYPE_CHECKING

from perf_middleware.compression.length_hiding import HidingEncoder
from perf_middleware.compression.runtime import piece_of

if TYPE_CHECKING:
    from perf_middleware.compression.runtime import Coding, Compression


async def encoded(
    compression: Compression, coding: Coding, body: bytes, *, step: int, hides: bool
) -> bytes | None:
    """`body` in this coding, at this step of pressure; `hides` its length.

    None where that is not shorter, or the codec failed.
    """
    try:
        encode = partial(coding.encode, body, step)
        if hides:
            encoder = hiding_encoder(compression, coding, step)
            encode = partial(piece_of, encoder, body, is_last=True)
        if len(body) >= compression.thread_bytes_min:
            form, busy_ns = await compression.in_thread(encode)
        else:
            form, busy_ns = encode()
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the plain body is an answer
        compression.note_failure(error)
        return None
    coding.count(body, form, busy_ns)
    if len(form) >= len(body):
        compression.figures.skipped["no-gain"] += 1
        return None
    return form


def hiding_encoder(
    compression: Compression, coding: Coding, step: int, *, stays_open: bool = False
) -> HidingEncoder:
    """An encoder that adds as many bytes as chance says."""
    padding_bytes = 1 + randbelow(compression.hidden_bytes_max)
    encoder = coding.encoder(step, stays_open=stays_open)
    return HidingEncoder(encoder, coding.name, padding_bytes)

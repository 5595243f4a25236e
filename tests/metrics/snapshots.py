"""Snapshots and sums in one go, where the product works in steps."""

from dataclasses import replace

from perf_middleware.families import Distribution, Value
from perf_middleware.metrics.workers.frames import counts_in, frames_of, labels_of, row_bytes
from perf_middleware.metrics.workers.merge import Totals
from perf_middleware.metrics.workers.snapshot import encode_frame, encode_head


def encode(families, *, epoch=0, folded=()):
    """Families as one snapshot."""
    frames = b"".join(map(encode_frame, frames_of(families)))
    return encode_head(epoch=epoch, folded=folded) + frames


def families_of(frames):
    """One family per frame, with its points."""
    return [replace(frame.family, points=tuple(_points_of(frame))) for frame in frames]


def _points_of(frame):
    width = row_bytes(frame.family.bounds)
    for row, (key, number) in enumerate(zip(frame.keys, frame.numbers, strict=True)):
        total = sum(number) if isinstance(number, list) else number
        if frame.family.kind == "histogram":
            counts = counts_in(frame.counts[row * width : (row + 1) * width])
            yield Distribution(labels_of(key), counts, total, frame.exemplars.get(row))
        else:
            yield Value(labels_of(key), total)


def merge(own, others=(), retired=(), *, worker):
    """Own, other workers' and dead workers' families as one list; `worker` is the own name."""
    totals = Totals()
    for name, families in ((worker, own), *others):
        for frame in frames_of(families):
            totals.add(frame, worker=name)
    for frame in frames_of(retired):
        totals.add(frame, worker="", alive=False)
    return list(totals.families())

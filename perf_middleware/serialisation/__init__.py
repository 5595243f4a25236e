"""JSON answers: one at once by orjson, and one too large for memory piece by piece."""

"""Ends a worker that is short of memory, one after the other, by its server's own graceful way."""

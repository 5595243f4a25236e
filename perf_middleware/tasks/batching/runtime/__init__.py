"""Bulk calls: who waits for which, on the event loop."""

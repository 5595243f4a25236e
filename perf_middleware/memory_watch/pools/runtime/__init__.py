"""The pools themselves: one for threads, one for async code, over the same decisions."""

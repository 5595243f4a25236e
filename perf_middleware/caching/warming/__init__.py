"""Warming: what will be asked for is asked of the app ahead of its clients."""

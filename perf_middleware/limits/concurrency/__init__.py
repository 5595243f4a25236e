"""Concurrency: how many requests the app works on at once, and who waits or is shed."""

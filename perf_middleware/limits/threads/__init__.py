"""Threads: how many sync endpoints run at once."""

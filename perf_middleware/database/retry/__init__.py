"""Retry: whole transactions again, when the database says that they may succeed the next time."""

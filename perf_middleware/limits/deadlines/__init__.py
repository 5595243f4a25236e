"""Deadlines: how long a request may take, and how much of it may come in."""

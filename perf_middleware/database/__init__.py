"""The database of an app: its pool, its statements, and what depends on its data."""

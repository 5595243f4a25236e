"""Tasks: what an app does later, or beside its answers."""

"""Limits: fair under use, alive under overload."""

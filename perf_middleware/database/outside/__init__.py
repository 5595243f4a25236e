"""Writes from outside of the app: triggers that we generate, and one connection that listens."""

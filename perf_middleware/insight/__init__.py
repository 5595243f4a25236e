"""Insight: what the figures mean."""

"""Drivers: other metrics libraries that the figures are exchanged with."""

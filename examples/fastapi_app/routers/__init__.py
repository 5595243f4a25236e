"""The shop's routes, one module for each part of it."""

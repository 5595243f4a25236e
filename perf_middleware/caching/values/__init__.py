"""The value cache: what functions returned, kept by their arguments."""

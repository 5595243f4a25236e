"""What the parts of the database know of the interpreter."""

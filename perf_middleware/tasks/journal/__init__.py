"""The journal: calls that were accepted for good, kept in a file until they have run."""

"""The query cache: what was read, kept until one of its tables is written."""

"""Where the journal is kept: a SQLite file, and beside it a locked file for each living owner."""

"""Work that a request leaves behind: who made it, and how it ended."""

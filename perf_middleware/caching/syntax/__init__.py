"""What header fields say, read from any bytes: a value or nothing, never an error.  Pure."""

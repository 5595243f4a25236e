"""What is kept in Redis, by scripts that each are one atomic step."""

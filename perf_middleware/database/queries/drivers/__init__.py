"""What of the query cache knows SQLAlchemy: names of statements, rows and entities as values."""

"""What knows SQLAlchemy, sqlglot and the catalogs of databases."""

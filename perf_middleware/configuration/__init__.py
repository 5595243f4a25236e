"""How settings are read: sources, names, problems, wording."""

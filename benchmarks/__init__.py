"""What each part of the bundle costs; see README.md."""

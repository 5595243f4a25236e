"""What the structures stand on: compressors."""

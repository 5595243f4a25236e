"""What memory grows at: allocation sites, object types and containers, looked at on demand."""

"""What differs between asyncio and trio."""

"""From families to the page that scrapers read: pure."""

"""What several processes share: the way to Redis, and what they tell each other there."""

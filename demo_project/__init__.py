"""The smallest believable shop: three services, one Redis, nothing else in common."""

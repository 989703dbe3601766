"""What calls stand under beside their budgets: rate limits, circuits, another model, the cache."""

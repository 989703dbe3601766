"""Controls of calls beside their budgets: rate limits, circuits, another model, the cache."""

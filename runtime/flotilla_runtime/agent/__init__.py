"""The agent workers: durable tasks, journals, budgets and the built-in loop."""

"""Durable agent workers: tasks, journals, budgets and the built-in loop."""

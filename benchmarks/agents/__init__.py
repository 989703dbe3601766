"""The benchmark of many small tasks, and of the task store alone: see `make bench-agents`."""

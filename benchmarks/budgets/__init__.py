"""The benchmark that presses trees of tasks against their limits: see `make bench-budgets`."""

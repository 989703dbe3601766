"""Placement on a large cluster, against an exact solver, and against deadlock."""

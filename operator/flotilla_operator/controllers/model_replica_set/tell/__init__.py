"""Tells what was decided of a set and what was refused: status, conditions and events."""

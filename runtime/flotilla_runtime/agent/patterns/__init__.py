"""Calls that an agent makes at the same time: how they begin, which of them count, and when the rest ends."""

"""Decides what is wanted of a set, from facts alone."""

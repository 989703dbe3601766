"""Conversion between the status of a set and the values that it keeps there; no other place knows both."""

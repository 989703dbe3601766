"""The tools of an agent: what they are called with, how they are called, and what they may not reach."""

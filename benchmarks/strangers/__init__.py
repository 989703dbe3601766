"""Plays the attacks that docs/security.md says are stopped, and counts those that reach their aim."""

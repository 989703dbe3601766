"""The agent that a fleet gets by default."""

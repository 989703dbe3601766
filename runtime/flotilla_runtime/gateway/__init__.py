"""The task API in front of an agent fleet."""

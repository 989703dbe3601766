"""The gateway: the task API of an agent fleet."""

"""What a set remembers in its status, and the one place that knows the status and the values."""

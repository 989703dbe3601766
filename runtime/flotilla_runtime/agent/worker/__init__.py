"""The process that takes tasks, runs them and makes their calls."""

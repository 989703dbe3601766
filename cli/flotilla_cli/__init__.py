"""The `flotilla` command, which is also a kubectl plugin."""

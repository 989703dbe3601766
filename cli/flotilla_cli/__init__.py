"""The flotilla command and its kubectl plugin."""

"""The stages of an index build: discover, parse, chunk, embed, write and promote."""

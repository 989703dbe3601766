"""How many tasks a model's slots and KV cache carry: `make bench-multiplexing`."""

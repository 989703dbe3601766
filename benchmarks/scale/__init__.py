"""What the operator costs beside a bare client, and whether it keeps up: see `python -m scale`."""

"""The benchmark of many sets that wait for room: see `make bench-waiting`."""

"""The benchmark of placement: its time on a large cluster, its result beside an exact solver's, deadlocks."""

"""The benchmark that kills what runs tasks: see `make bench-recovery`."""

"""Parts that the benchmarks of agent fleets share: a fleet of processes on this machine, and its caller."""

"""The benchmark of the router: the latency that it adds, and what its choice of the replica gains."""

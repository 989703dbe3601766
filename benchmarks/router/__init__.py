"""What the router costs, and what its choice of replica is worth."""

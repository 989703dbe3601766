"""The story of a ModelReplicaSet: observe its groups, plan its next step, say how it is."""

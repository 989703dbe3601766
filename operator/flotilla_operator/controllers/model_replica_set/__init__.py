"""The controller of ModelReplicaSets: it keeps replicas on the right nodes, turns them over, and routes to
them.
"""

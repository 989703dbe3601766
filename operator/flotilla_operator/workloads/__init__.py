"""Makes Kubernetes objects from specs; pure."""

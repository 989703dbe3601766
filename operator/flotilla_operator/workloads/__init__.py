"""Pure: a spec in, the Kubernetes objects it wants out."""

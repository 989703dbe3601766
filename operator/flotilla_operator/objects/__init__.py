"""What every package may know of Kubernetes' objects: references, owners, quantities, hashes and times.

And when a request that failed is repeated.
"""

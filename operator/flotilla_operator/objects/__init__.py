"""Kubernetes' objects, as every package may know them: references, owners, quantities, hashes and times.

Also decides when a request that failed is repeated.
"""

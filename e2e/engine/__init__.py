"""A real engine for machines without a GPU: vLLM's CPU build, a small image for it, and two small models.

vLLM is installed once into the cache, from a lock file, as a plain folder of packages that any Python 3.11
can put on its path. No file in it holds the folder's own path. So the tests on the host use the same folder
that the engine pods of the local cluster mount read-only.
"""

"""A real engine for machines without a GPU: vLLM's CPU build, its thin image and two small models.

The environment is installed once into the cache, from a lock file, as a plain folder of packages that any
Python 3.11 can put on its path. Nothing in it names its own place, so the same folder serves the tests on the
host and, mounted read-only, the engine pods of the local cluster.
"""

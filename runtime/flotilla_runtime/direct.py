"""Clients of what is in the cluster: they use no proxy, whatever the environment names.

The environment counts for everything else, as for the authorities that are trusted.
"""

from typing import Final

DIRECT: Final = {"http://": None, "https://": None, "all://": None}  # httpx2's transports by address

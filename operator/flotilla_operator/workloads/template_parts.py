"""The parts that releases added to pod templates of before.

What serves keeps its template without a part that is new, until its pods are made anew for another reason:
a new part acts as a new image does (decision 0008). So a builder asks `TemplatePart.X in images.parts` and
renders what it rendered before where the part is not among them.
"""

from enum import StrEnum
from typing import Final


class TemplatePart(StrEnum):
    """Parts that a release added to pod templates. The values stand in clusters, so none may change.

    CONTRIBUTING.md says how one is added and when it may go.
    """

    GATEWAY_MEMORY = "gateway-memory"
    GATEWAY_REVIEWS = "gateway-reviews"  # its service account, and the token with which it asks
    ISOLATED_PYTHON = "isolated-python"  # of workers with an image of the user, and of tool executors
    REDIS_LIVENESS = "redis-liveness"  # a minute of BUSY counts as dead
    REDIS_MEMORY = "redis-memory"
    RETRIEVER_MEMORY = "retriever-memory"


ALL_PARTS: Final = frozenset(TemplatePart)

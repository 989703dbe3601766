"""The pods that the operator asks how they are, over a network that a scene does not have."""

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from flotilla_operator.objects.resources import PODS, Manifest
from flotilla_runtime import contract
from tests.scenes.parts.part import Cluster, is_ready

ANSWERS_WITHIN_SECONDS = (0.002, 0.05)


class Scraped:
    """Answers for each pod that is ready, as the function for its component says."""

    def __init__(self, cluster: Cluster, answers: Mapping[str, Callable[[Manifest], bytes]]) -> None:
        self._cluster = cluster
        self._answers = answers

    async def fetch(self, url: str) -> bytes:
        await asyncio.sleep(self._cluster.draw(*ANSWERS_WITHIN_SECONDS))
        address = urlsplit(url).hostname
        for pod in self._cluster.listed(PODS):
            answer = self._answers.get(
                (pod["metadata"].get("labels") or {}).get(contract.LABEL_COMPONENT, "")
            )
            if answer is not None and pod["status"].get("podIP") == address and is_ready(pod):
                return answer(pod)
        raise ConnectionError(f"nobody answers at {url}")

    async def close(self) -> None:
        """Nothing is open."""

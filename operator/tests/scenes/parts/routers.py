"""The agents of router pods."""

from collections.abc import Callable

from flotilla_operator.objects.resources import PODS, Manifest
from flotilla_runtime import contract
from tests.scenes.parts.part import Cluster
from tests.support.router_answers import RouterWords


class Routers:
    """Answers as `of` says for the set; router pods that are `silent` do not answer."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._words: dict[str, RouterWords] = {}
        self.silent: Callable[[Manifest], bool] = lambda _pod: False

    def of(self, name: str) -> RouterWords:
        """Answers of the routers of this set."""
        return self._words.setdefault(name, RouterWords())

    def answer(self, router: Manifest) -> bytes:
        metadata = router["metadata"]
        if self.silent(router):
            raise ConnectionError(f"{metadata['name']} does not answer")
        name = metadata["labels"][contract.LABEL_OWNER_NAME]
        pods = self._cluster.listed(PODS, metadata["namespace"])
        status = self.of(name).status(metadata["name"], [pod for pod in pods if _is_leader_of(pod, name)])
        return status.model_dump_json(by_alias=True).encode()


def _is_leader_of(pod: Manifest, name: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(contract.LABEL_OWNER_NAME) == name and labels.get(contract.LABEL_STAGE) == "0"

"""Takes the label `app.kubernetes.io/instance` from claims that an older operator made with it.

Argo CD may track objects by this label. It takes a claim with the label and without an owner for a part of
the Application of that name, and prunes it with its data. Each new leader looks once, because no reconcile
applies the claims of paused objects, of objects that use another Redis or Milvus by now, and of deleted ones.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.cluster.reflector import BACKOFF, FAILURES
from flotilla_operator.cluster.writes import JsonPatch
from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS, Manifest
from flotilla_runtime import contract
from flotilla_runtime.contract.failure_texts import what_failed

LABEL_PATH: Final = f"/metadata/labels/{contract.LABEL_INSTANCE.replace('/', '~1')}"
NOT_FOUND: Final = 404
INVALID: Final = 422  # a test of the patch failed: the claim is another one, or has lost the label

log = structlog.get_logger(__name__)


def without_instance(claim: Manifest) -> JsonPatch | None:
    """The patch that removes the label as an older operator set it; None where it did not."""
    metadata = claim["metadata"]
    labels = metadata.get("labels") or {}
    instance = labels.get(contract.LABEL_INSTANCE)
    ours = labels.get(contract.LABEL_MANAGED_BY) == contract.MANAGED_BY
    if not ours or instance is None or instance != labels.get(contract.LABEL_OWNER_NAME):
        return None
    return JsonPatch(
        ref=PERSISTENT_VOLUME_CLAIMS.ref_to(claim),
        uid=metadata["uid"],
        operations=[
            {"op": "test", "path": LABEL_PATH, "value": instance},
            {"op": "remove", "path": LABEL_PATH},
        ],
    )


class OlderClaims:
    """The claims in the caches that still have the label."""

    def __init__(self, client: Client, caches: Caches, *, draw: Callable[[float, float], float]) -> None:
        self._client = client
        self._caches = caches
        self._draw = draw

    async def release(self) -> None:
        """Remove the label from each of them; repeated for those whose patch failed, until none is left."""
        claims = self._caches.listed(PERSISTENT_VOLUME_CLAIMS)
        left = [patch for claim in claims if (patch := without_instance(claim)) is not None]
        failures = 0
        while left := await self._tried(left):
            failures += 1
            await asyncio.sleep(BACKOFF.seconds_after(failures, self._draw))

    async def _tried(self, patches: Sequence[JsonPatch]) -> list[JsonPatch]:
        """Send the patches one after another; returns those that failed."""
        return [patch for patch in patches if not await self._sent(patch)]

    async def _sent(self, patch: JsonPatch) -> bool:
        ref = patch.ref
        try:
            await self._client.json_patch(
                PERSISTENT_VOLUME_CLAIMS, ref.namespace, ref.name, [*patch.guards, *patch.operations]
            )
        except FAILURES as error:
            if isinstance(error, ApiError) and error.status in (NOT_FOUND, INVALID):
                return True
            log.warning(
                "claim_keeps_its_label", namespace=ref.namespace, name=ref.name, error=what_failed(error)
            )
            return False
        log.info("claim_lost_its_label", namespace=ref.namespace, name=ref.name)
        return True

"""Reads secrets by name, one at a time.

The operator has no right to list or watch secrets, so it reads those that its objects refer to. It keeps each
answer for a short time, so that many reconciles in a row cause one request. Secrets are never logged.
"""

import base64
import time
from collections.abc import Callable
from typing import Final

from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.controllers.controller import Secret
from flotilla_operator.objects import send_to, used_by
from flotilla_operator.objects.resources import SECRETS

FOUND_SECONDS: Final = 60.0
MISSING_SECONDS: Final = 10.0
# No event tells that a secret was made or changed, so those that name one are looked at again.
LOOK_FOUND_SECONDS: Final = 75.0  # after the kept answer has expired, and less than once a minute
LOOK_MISSING_SECONDS: Final = 10.0


class CachedSecrets:
    """A `SecretReader` that asks the API server and caches the answers."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, Secret | None]] = {}

    async def get(self, namespace: str, name: str, *, owned_by: str | None = None) -> Secret | None:
        """The secret, or None when it does not exist."""
        now = self._clock()
        self._kept = {place: held for place, held in self._kept.items() if now < held[0]}
        if (kept := self._kept.get((namespace, name))) is not None and _will_do(kept[1], owned_by):
            return kept[1]
        secret = await self._read(namespace, name)
        self._kept[namespace, name] = (now + (FOUND_SECONDS if secret else MISSING_SECONDS), secret)
        return secret

    async def _read(self, namespace: str, name: str) -> Secret | None:
        try:
            manifest = await self._client.get(SECRETS, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        metadata = manifest["metadata"]
        annotations = metadata.get("annotations") or {}
        return Secret(
            name=name,
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            controller_uid=controller_uid(manifest),
            send_to=annotations.get(send_to.ANNOTATION),
            used_by=annotations.get(used_by.ANNOTATION),
            data={key: base64.b64decode(value) for key, value in (manifest.get("data") or {}).items()},
        )


def _will_do(kept: Secret | None, owned_by: str | None) -> bool:
    """Whether a cached answer may be used: not while an object waits for the secret that it makes itself."""
    return owned_by is None or (kept is not None and kept.controller_uid == owned_by)

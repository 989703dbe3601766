"""The salts with which a model keeps what it caches of one tenant's prompts from the others.

A salt is a keyed hash of the tenant, so that nobody who knows a tenant's name can make its salt. The key is
random and in the fleet's Redis: the first worker that needs it makes it, all others find it, and no tool
executor may read it. Another key, after that Redis was lost, costs what the models had cached.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Any, Final

from redis.asyncio import Redis

from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.contract import TaskKeys

KEY_BYTES: Final = 32


class Salts:
    """The salts of one fleet's tenants."""

    def __init__(self, client: Redis, keys: TaskKeys) -> None:
        self._client = client
        self._name = keys.salt_key
        self._key: bytes | None = None

    async def of(self, tenant: str) -> str:
        """The salt of a tenant: 256 bits. Raises StoreUnavailableError."""
        if self._key is None:
            self._key = await self._found()
        digest = hmac.digest(self._key, tenant.encode(errors="surrogatepass"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    async def _found(self) -> bytes:
        await asked(self._client.set(self._name, secrets.token_hex(KEY_BYTES), nx=True))
        found: Any = await asked(self._client.get(self._name))
        return bytes.fromhex(found)

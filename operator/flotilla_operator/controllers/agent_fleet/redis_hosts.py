"""The hosts to which the URL of a user's Redis leads, to compare them with where a secret may be sent."""

import re
from typing import Final

from flotilla_runtime.contract import SecretError, SecretForm, secret_value

REDIS_PORT: Final = 6_379
SENTINEL_PORT: Final = 26_379
# Nothing after the hosts may have an @: the hosts would be a part of a password that is not encoded.
URL: Final = re.compile(r"rediss?://(?P<hosts>[^/?#\s]+)([/?#][^@\s]*)?", re.IGNORECASE)


def hosts_of(url: bytes, *, usual_port: int = REDIS_PORT) -> tuple[str | None, ...]:
    """The URL of each host, without user, password and path; None stands for what cannot be read.

    A URL of sentinels names several hosts, with commas: `redis://user:password@a:26379,b:26379/0`.
    """
    try:
        found = URL.fullmatch(secret_value(url, "the URL", SecretForm.TEXT))
    except SecretError:
        return (None,)
    if found is None:
        return (None,)
    hosts = [host for host in found["hosts"].rpartition("@")[2].split(",") if host]
    return tuple(f"redis://{_with_port(host, usual_port)}" for host in hosts) or (None,)


def _with_port(host: str, usual: int) -> str:
    port = host.rpartition("]")[2] if host.startswith("[") else host
    return host if ":" in port else f"{host}:{usual}"

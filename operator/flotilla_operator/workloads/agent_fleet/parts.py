"""The parts of a fleet by name, and what its controller has found out for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flotilla_operator.workloads.labels import Child, Owner
from flotilla_runtime import contract

REDIS_PASSWORD_PATH = f"{contract.REDIS_SECRET_DIRECTORY}/{contract.REDIS_PASSWORD_KEY}"


def redis(owner: Owner) -> Child:
    """The fleet's own Redis: `NAME-redis`, also the name of its claim and of its password."""
    return Child(owner=owner, component="redis", suffix="redis")


def gateway(owner: Owner) -> Child:
    """The task API: `NAME-gateway`."""
    return Child(owner=owner, component="gateway", suffix="gateway")


def workers(owner: Owner) -> Child:
    """The pods that run tasks: `NAME-worker`."""
    return Child(owner=owner, component="worker", suffix="worker")


def gateway_url(owner: Owner) -> str:
    """Where tasks are submitted."""
    return f"http://{gateway(owner).name}.{owner.namespace}.svc:{contract.PORT_GATEWAY}"


def redis_url(owner: Owner) -> str:
    """The managed Redis, without its password."""
    return f"redis://{redis(owner).name}.{owner.namespace}.svc:{contract.PORT_REDIS}/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEntry:
    """One entry of a secret, and the environment variable that takes its value."""

    environment: str
    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What the workers call, as far as it is known; `secret_versions` change when a secret they read does.

    The workers are started once every model and index is known, and then keep what they have.
    """

    models: tuple[contract.ModelConnection, ...] = ()
    indexes: tuple[contract.IndexConnection, ...] = ()
    model_keys: tuple[SecretEntry, ...] = ()
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True

"""The key that a set's engines require. Only the routers have it, so calls that bypass the routers are
refused.

It is in the secret `NAME-engine-key`, which is made once, and vLLM and HAProxy get it as an environment
variable. An engine without a key (a pod of an older release) accepts any key, so the routers always send it.

A deleted key cannot be recovered. The operator then makes another one and records the time in the secret.
This time is part of the engines' revision and of the routers' template, so both are replaced. Deleting the
secret is also the way to replace a key.
"""

import base64

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.labels import Child
from flotilla_runtime import contract

KEY_ENTRY = "key"
MADE_ANEW_ENTRY = "madeAnew"  # the time at which a key was made that is not the set's first one


def engine_key(owner: Owner) -> Child:
    """The secret `NAME-engine-key`."""
    return Child(owner=owner, component="engine", suffix="engine-key")


def engine_key_secret(owner: Owner, key: str, *, made_anew: str) -> Manifest:
    """The secret with the key; `made_anew` is empty for the set's first key."""
    entries = {KEY_ENTRY: key, MADE_ANEW_ENTRY: made_anew}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": engine_key(owner).metadata(),
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in entries.items()},
    }


def engine_key_variable(owner: Owner) -> Manifest:
    """The environment variable that holds the key."""
    reference = {"name": engine_key(owner).name, "key": KEY_ENTRY}
    return {"name": contract.ENV_ENGINE_KEY, "valueFrom": {"secretKeyRef": reference}}


def asks_for_our_key(spec: ModelReplicaSetSpec) -> bool:
    """Whether the engines require our key. If the user sets one in spec.engine.env, callers send that."""
    return all(variable.name != contract.ENV_ENGINE_KEY for variable in spec.engine.env)

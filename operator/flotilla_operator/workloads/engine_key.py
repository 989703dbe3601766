"""The key that a set's engines ask for. Only the routers have it, so a call that passes them by is refused.

It stands in the secret `NAME-engine-key`, which is made once, and reaches vLLM and HAProxy as an environment
variable. An engine without a key (a pod of an older release) takes any, so the routers always send it. A key
that was deleted cannot be known again: another one is made, with the time in it, and this time goes into the
engines' revision and the routers' template, so both are replaced. That is how a key is exchanged, too.
"""

import base64

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.workloads.labels import Child, Manifest, Owner
from flotilla_runtime import contract

KEY_ENTRY = "key"
MADE_ANEW_ENTRY = "madeAnew"  # the time of a key that is not the set's first one


def engine_key(owner: Owner) -> Child:
    """The secret `NAME-engine-key`."""
    return Child(owner=owner, component="engine", suffix="engine-key")


def engine_key_secret(owner: Owner, key: str, *, made_anew: str) -> Manifest:
    """The secret with the key; `made_anew` is empty for the first one."""
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
    """Whether the engines ask for the key of our making; with one of the user's, callers send that."""
    return all(variable.name != contract.ENV_ENGINE_KEY for variable in spec.engine.env)

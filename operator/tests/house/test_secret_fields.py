"""Every field of the API that names a Secret obeys one of the two annotations of its owner."""

import typing
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.parts import SecretRef
from flotilla_operator.api.vector_index import VectorIndexSpec

SENT, MOUNTED, NOT_YET = "flotilla.dev/send-to", "flotilla.dev/used-by", "the field is refused"
# The fields, and the annotation that a Secret needs there. A new field gets a line, and a test beside the
# others of its kind that says what happens to a Secret that is not for it.
FIELDS: dict[str, dict[str, str]] = {
    "ModelReplicaSet": {
        "model.tokenSecretRef": SENT,
        "router.authSecretRef": MOUNTED,
        "router.tls.secretRef": MOUNTED,
    },
    "VectorIndex": {
        "milvus.tokenSecretRef": SENT,  # refused with Milvus Lite, which has no users
        "retriever.authSecretRef": MOUNTED,
        "source.secretRef": NOT_YET,
    },
    "AgentFleet": {
        "gateway.auth.secretRef": MOUNTED,
        "gateway.tls.secretRef": MOUNTED,
        "models.endpoint.apiKeySecretRef": SENT,
        "queue.payloads.secretRef": SENT,
        "queue.redis.sentinel.passwordSecretRef": SENT,
        "queue.redis.urlSecretRef": SENT,
        "telemetry.headersSecretRef": SENT,
        "tools.http.headersSecretRef": SENT,
        "tools.mcp.headersSecretRef": SENT,
        "tools.reconcile.http.headersSecretRef": SENT,
        "tools.sql.urlSecretRef": SENT,
        "validators.http.headersSecretRef": SENT,
    },
}
SPECS: dict[str, type[BaseModel]] = {
    "ModelReplicaSet": ModelReplicaSetSpec,
    "VectorIndex": VectorIndexSpec,
    "AgentFleet": AgentFleetSpec,
}


def secret_fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        here = f"{path}{field.serialization_alias or field.alias or name}"
        for part in _parts(field.annotation):
            if issubclass(part, SecretRef):
                yield here
            elif issubclass(part, BaseModel):
                yield from secret_fields(part, f"{here}.")


def _parts(annotation: object) -> Iterator[type]:
    """The classes in an annotation, such as `tuple[Tool, ...] | None`."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _parts(argument)


@pytest.mark.parametrize("kind", SPECS)
def test_each_field_with_a_secret_says_which_annotation_it_needs(kind: str) -> None:
    assert set(secret_fields(SPECS[kind])) == set(FIELDS[kind])

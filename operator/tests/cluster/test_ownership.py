"""Why a write was refused: from the API server's answer, or from the object that has the name."""

from typing import Any

import pytest

from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.ownership import Reconciled, RefusedError, refusal_reason, refuse_unless_ours
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS

FORBIDDEN = 'pods "llama-x" is forbidden: '
OWNER = Reconciled(
    resource=MODEL_REPLICA_SETS,
    manifest={"metadata": {"name": "llama", "namespace": "default", "uid": "uid-llama"}},
)
OF_LLAMA = {"flotilla.dev/kind": "ModelReplicaSet", "flotilla.dev/owner": "llama"}


@pytest.mark.parametrize(
    ("status", "said", "causes", "reason"),
    [
        pytest.param(
            403,
            FORBIDDEN + "exceeded quota: gpus, requested: requests.nvidia.com/gpu=4, used: 0, limited: 0",
            (),
            WriteReason.QUOTA_EXCEEDED,
            id="a quota that is used up",
        ),
        pytest.param(
            403,
            FORBIDDEN + "failed quota: cores: must specify limits.cpu for: engine",
            (),
            WriteReason.FORBIDDEN,
            id="a quota that wants the pod otherwise",
        ),
        pytest.param(
            403,
            FORBIDDEN + 'violates PodSecurity "restricted:latest": restricted volume types',
            (),
            WriteReason.FORBIDDEN,
            id="pod security",
        ),
        pytest.param(
            403,
            FORBIDDEN + "unable to create new content in namespace default because it is being terminated",
            ("NamespaceTerminating",),
            WriteReason.NAMESPACE_TERMINATING,
            id="a namespace that ends",
        ),
        pytest.param(422, "field is immutable", (), WriteReason.INVALID, id="a field that cannot change"),
        pytest.param(400, "unknown field", (), WriteReason.INVALID, id="a request that is no object"),
        pytest.param(409, "has been modified", (), WriteReason.CONFLICT, id="somebody else wrote"),
        pytest.param(401, "Unauthorized", (), WriteReason.FAILED, id="a token that has expired"),
        pytest.param(404, "not found", (), WriteReason.FAILED, id="a kind that is not served"),
        pytest.param(429, "too many requests", (), WriteReason.FAILED, id="a server with too much to do"),
        pytest.param(500, "failed calling webhook", (), WriteReason.FAILED, id="a webhook that is broken"),
        pytest.param(503, "unavailable", (), WriteReason.FAILED, id="a server that is starting"),
    ],
)
def test_an_answer_is_a_reason(status: int, said: str, causes: tuple[str, ...], reason: WriteReason) -> None:
    error = ApiError(status=status, reason="", message=said, causes=frozenset(causes))
    assert refusal_reason(error) is reason


def live(**metadata: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": "llama-model", **metadata}}


def of(uid: str, **reference: Any) -> list[dict[str, Any]]:
    return [{**OWNER.reference, "uid": uid, **reference}]


@pytest.mark.parametrize(
    ("found", "retained", "reason"),
    [
        pytest.param(live(), False, WriteReason.NAME_TAKEN, id="nobody's"),
        pytest.param(
            live(ownerReferences=of("x", name="other")),
            False,
            WriteReason.NAME_TAKEN,
            id="another set's",
        ),
        pytest.param(
            live(ownerReferences=of("uid-llama", controller=False)),
            False,
            WriteReason.NAME_TAKEN,
            id="one that the set does not control",
        ),
        pytest.param(
            live(labels={**OF_LLAMA, "flotilla.dev/owner": "other"}),
            True,
            WriteReason.NAME_TAKEN,
            id="one that is kept for another set",
        ),
        pytest.param(
            live(ownerReferences=of("uid-before")),
            False,
            WriteReason.BEING_DELETED,
            id="that of a deleted set of this name",
        ),
        pytest.param(
            live(ownerReferences=of("uid-llama"), deletionTimestamp="2026-05-01T12:00:00Z"),
            False,
            WriteReason.BEING_DELETED,
            id="ours, on its way out",
        ),
    ],
)
def test_an_object_that_is_not_to_be_written_is_a_reason(
    found: dict[str, Any], retained: bool, reason: WriteReason
) -> None:
    with pytest.raises(RefusedError) as refused:
        refuse_unless_ours(OWNER, found, retained=retained)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("found", "retained"),
    [
        pytest.param(live(ownerReferences=of("uid-llama")), False, id="ours"),
        pytest.param(live(labels=OF_LLAMA), True, id="one that is kept for us"),
    ],
)
def test_what_is_ours_may_be_written(found: dict[str, Any], retained: bool) -> None:
    refuse_unless_ours(OWNER, found, retained=retained)

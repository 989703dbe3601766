"""Fate of a claim with data by its deletion policy: a row for each reason."""

from typing import Any

import pytest

from flotilla_operator.controllers.claims import ClaimReason, claim_reason
from flotilla_operator.controllers.live_objects import live_object
from flotilla_operator.objects.owners import Owner

OWNER = Owner(kind="AgentFleet", namespace="default", name="support", uid="uid-support")
RETAINED: list[dict[str, Any]] = []
OWNED = [OWNER.reference]


@pytest.mark.parametrize(
    ("references", "retained", "ours", "reason"),
    [
        pytest.param(None, True, False, ClaimReason.APPLIED, id="there is none yet"),
        pytest.param(RETAINED, True, True, ClaimReason.APPLIED, id="retained, as it is to be"),
        pytest.param(OWNED, False, True, ClaimReason.APPLIED, id="owned, as it is to be"),
        pytest.param(RETAINED, False, True, ClaimReason.ADOPTED, id="retained, to be deleted with its owner"),
        pytest.param(OWNED, True, True, ClaimReason.RELEASED, id="owned, to be retained"),
        pytest.param(RETAINED, False, False, ClaimReason.APPLIED, id="somebody else's, which is refused"),
        pytest.param(
            [{**OWNER.reference, "uid": "uid-before"}],
            True,
            True,
            ClaimReason.APPLIED,
            id="a deleted owner's of the same name",
        ),
    ],
)
def test_a_claim_follows_its_deletion_policy(
    references: list[dict[str, Any]] | None, retained: bool, ours: bool, reason: ClaimReason
) -> None:
    claim = None
    if references is not None:
        metadata = {
            "name": "support-redis",
            "namespace": "default",
            "uid": "u",
            "ownerReferences": references,
        }
        claim = live_object({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata})
    assert claim_reason(claim, OWNER, retained=retained, ours=ours) is reason

"""Why a write was refused, from the API server's answer."""

import pytest

from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.ownership import RefusalReason, refusal_reason

FORBIDDEN = 'pods "llama-x" is forbidden: '


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(
            "exceeded quota: gpus, requested: requests.nvidia.com/gpu=4, used: 0, limited: 0",
            RefusalReason.QUOTA_EXCEEDED,
            id="a quota that is used up",
        ),
        pytest.param(
            "failed quota: cores: must specify limits.cpu for: engine",
            RefusalReason.FORBIDDEN,
            id="a quota that wants the pod otherwise",
        ),
        pytest.param(
            'violates PodSecurity "restricted:latest": restricted volume types',
            RefusalReason.FORBIDDEN,
            id="pod security",
        ),
    ],
)
def test_what_time_mends_is_told_from_what_is_forbidden(said: str, reason: RefusalReason) -> None:
    assert refusal_reason(ApiError(status=403, reason="Forbidden", message=FORBIDDEN + said)) is reason

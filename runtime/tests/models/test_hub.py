"""The errors of the hub's client become a reason and the field to mend; with a hub: e2e/test_hub_stub."""

import errno

import pytest
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from flotilla_runtime.models.failures import CACHE, REVISION, SOURCE, TOKEN, Reason, TransientError
from flotilla_runtime.models.hub import Repository, explained


def refused(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    """As the client raises it; of the response only the status is looked at."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub said no")
    error.response = type("Response", (), {"status_code": status})()
    return error


@pytest.mark.parametrize(
    ("raised", "reason", "field"),
    [
        pytest.param(HFValidationError("a/b/c"), Reason.SOURCE_INVALID, SOURCE, id="no name of a repository"),
        pytest.param(
            refused(RepositoryNotFoundError, 404), Reason.REPOSITORY_MISSING, SOURCE, id="no such repository"
        ),
        pytest.param(refused(DisabledRepoError, 403), Reason.REPOSITORY_MISSING, SOURCE, id="a disabled one"),
        pytest.param(
            refused(RevisionNotFoundError, 404), Reason.REVISION_MISSING, REVISION, id="no such revision"
        ),
        pytest.param(refused(GatedRepoError, 403), Reason.UNAUTHORISED, TOKEN, id="a gated one"),
        pytest.param(
            refused(HfHubHTTPError, 401), Reason.UNAUTHORISED, TOKEN, id="a token that is not valid"
        ),
        pytest.param(
            refused(HfHubHTTPError, 403), Reason.UNAUTHORISED, TOKEN, id="a token without the right"
        ),
        pytest.param(OSError(errno.ENOSPC, "full"), Reason.DISK_FULL, CACHE, id="no room"),
        pytest.param(OSError(errno.EDQUOT, "full"), Reason.DISK_FULL, CACHE, id="no room in the quota"),
        pytest.param(
            PermissionError(errno.EACCES, "x"), Reason.FOLDER_UNWRITABLE, CACHE, id="no right to write"
        ),
    ],
)
def test_what_a_person_must_mend(raised: Exception, reason: Reason, field: str) -> None:
    error = explained(raised, Repository(name="org/model", revision="v1"))
    assert (error.reason, error.field) == (reason, field)
    assert not isinstance(error, TransientError)
    assert str(error).startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        pytest.param(refused(HfHubHTTPError, 503), Reason.DOWNLOAD_FAILED, id="the hub is busy"),
        pytest.param(ConnectionError("no route"), Reason.DOWNLOAD_FAILED, id="the hub cannot be reached"),
        pytest.param(ValueError(""), Reason.DOWNLOAD_FAILED, id="something nobody thought of"),
    ],
)
def test_what_may_pass_by_itself_is_tried_again(raised: Exception, reason: Reason) -> None:
    error = explained(raised, Repository(name="org/model", revision=None))
    assert isinstance(error, TransientError)
    assert error.reason is reason

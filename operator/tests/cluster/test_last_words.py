"""Containers' last words in the caches, where kinds are restricted."""

from typing import Any

import pytest

from flotilla_operator.cluster.stripped import stripped
from flotilla_operator.controllers.vector_index.jobs import read_report
from flotilla_operator.objects.resources import PODS
from flotilla_operator.workloads.model_facts import reported
from flotilla_operator.workloads.pod_trouble import trouble_of
from flotilla_runtime import contract

SAID = "hush7364"
FACTS = contract.ModelFacts(config={"num_hidden_layers": 2}).model_dump_json(by_alias=True)
FAILED = contract.StepReport(
    step=contract.BuildStep.PLAN, reason=contract.BuildReason.SOURCE_EMPTY, message="no file matches"
)


def ended(message: str, code: int = 1, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def container(name: str = "engine", /, **of: Any) -> dict[str, Any]:
    return {"name": name, "ready": False, "restartCount": 1, **of}


def pod(*, component: str = "engine", **status: Any) -> dict[str, Any]:
    labels = {contract.LABEL_OWNER_NAME: "llama", contract.LABEL_COMPONENT: component}
    metadata = {"name": "p", "namespace": "default", "uid": "u", "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": "a"}, "status": status}


@pytest.mark.holds("security.md", "With `restrict.enabled` no status has the last words of a container")
@pytest.mark.parametrize(
    ("said", "keeps"),
    [
        pytest.param({"lastState": ended(f"Traceback\n{SAID}")}, "ended with code 1", id="its last line"),
        pytest.param({"state": ended(SAID, 137, "OOMKilled")}, "OOMKilled", id="killed for memory"),
        pytest.param(
            {"lastState": ended('{"config": {"a": "hush7364"}}', 0)}, "ended with code 0", id="like a report"
        ),
        pytest.param(
            {"state": {"waiting": {"reason": "RunContainerError", "message": f'exec: "{SAID}": not found'}}},
            "kubectl describe pod -n default p",
            id="a command that quotes a variable",
        ),
        pytest.param(
            {"state": {"waiting": {"reason": "CreateContainerError", "message": SAID}}},
            "kubectl describe pod -n default p",
            id="a container that cannot be made",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_last_words_are_in_no_trouble_and_it_says_where_they_are(
    said: dict[str, Any], keeps: str, kind: str
) -> None:
    failed = {"lastState": ended(SAID)} if kind == "initContainerStatuses" and "code 0" in keeps else said
    status: dict[str, Any] = {kind: [container(**failed)]}
    whole = pod(**status)
    loud = trouble_of(stripped(PODS, whole))
    assert loud is not None
    assert SAID in loud.message
    quiet = stripped(PODS, whole, quiet=True)
    assert SAID not in str(quiet)
    trouble = trouble_of(quiet)
    assert trouble is not None
    assert trouble.reason is loud.reason
    if failed is said:
        assert keeps in trouble.message
    if "waiting" not in str(said):
        assert "kubectl logs -n default p -c engine" in trouble.message


def test_what_the_kubelet_says_of_images_and_missing_secrets_stays() -> None:
    for reason in ("ImagePullBackOff", "CreateContainerConfigError"):
        waits: dict[str, Any] = {"state": {"waiting": {"reason": reason, "message": 'secret "x" not found'}}}
        trouble = trouble_of(stripped(PODS, pod(containerStatuses=[container(**waits)]), quiet=True))
        assert trouble is not None
        assert 'secret "x" not found' in trouble.message


def test_facts_of_a_model_and_reports_of_a_build_stay() -> None:
    loaded = pod(initContainerStatuses=[container("model-facts", state=ended(FACTS, 0))])
    assert reported([stripped(PODS, loaded, quiet=True)]) is not None
    built = pod(
        component="build", containerStatuses=[container("build", state=ended(FAILED.model_dump_json()))]
    )
    kept = stripped(PODS, built, quiet=True)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert read_report(contract.BuildStep.PLAN, kept) == FAILED


@pytest.mark.holds("security.md", "With `restrict.enabled` no status has the last words of a container")
@pytest.mark.parametrize("message", [SAID, f'{{"log": "{SAID}"}}', f'"{SAID}"'])
def test_a_build_that_left_no_report_says_where_its_words_are(message: str) -> None:
    built = pod(component="build", containerStatuses=[container("build", state=ended(message))])
    kept = stripped(PODS, built, quiet=True)["status"]["containerStatuses"][0]["state"]["terminated"]
    told = read_report(contract.BuildStep.PLAN, kept).message
    assert SAID not in told
    assert "kubectl logs -n default p -c build" in told

"""A change that rolls the pods of a gateway and of a retriever: their callers notice nothing."""

import base64
from collections.abc import Sequence

import pytest

from demo.environment import FLEET, Environment
from tests.support.applied import Site
from tests.support.caller import Call, calling
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("demo"),
    pytest.mark.timeout(2400, func_only=True),
]

INDEX = "manual"
ROLLED = (f"{FLEET}-gateway", f"{INDEX}-retriever")


@pytest.mark.holds("tasks.md", "Callers of the gateway are answered while it rolls")
@pytest.mark.holds("decisions/0007-index-builds.md", "Callers of the retriever are answered while it rolls")
@pytest.mark.once
def test_callers_of_gateway_and_retriever_are_answered_while_both_roll(demo: Environment) -> None:
    site = Site(demo.kubectl)
    before = uids(site)
    assert len(before) >= len(ROLLED)
    with calling(site, demo.build_images()["runtime"], calls(demo)) as caller:
        site.patch("AgentFleet", FLEET, {"spec": {"limits": {"maxSteps": 7}}})
        site.patch("VectorIndex", INDEX, {"spec": {"retriever": {"topK": 6}}})
        eventually(lambda: len(uids(site)) == len(before) and not uids(site) & before)
        demo.wait_until_ready()
        rolled = caller.answered()
        eventually(lambda: all(now > then for now, then in zip(caller.answered(), rolled, strict=True)))
        assert caller.broken() == []


def uids(site: Site) -> set[str]:
    """The pods that roll, those that are ending too."""
    pods = site.objects.list("Pod")
    return {pod["metadata"]["uid"] for pod in pods if pod["metadata"]["name"].startswith(ROLLED)}


def calls(demo: Environment) -> Sequence[Call]:
    authorized = {"Authorization": f"Bearer {demo.token()}"}
    secret = demo.kubectl.get("secret", f"{INDEX}-retriever-key")
    key = base64.b64decode(secret["data"]["key"]).decode()
    return [
        Call(url=f"http://{FLEET}-gateway:8080/v1/tasks/none", status=404, headers=authorized),
        Call(
            url=f"http://{INDEX}-retriever:8080/v1/retrieve",
            status=200,
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            body={"query": "What is a savepoint?"},
        ),
    ]

"""The chart's proxies: what runs stays, and who connects to the outside gets them from then on."""

import pytest

from flotilla_operator.controllers.config import parse_config
from flotilla_operator.objects.resources import DEPLOYMENTS, Manifest
from tests.builders.world import IMAGES
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes


def with_proxy(manifest: Manifest) -> set[str]:
    """The containers of a pod that have a proxy."""
    pod = manifest["spec"]
    return {
        container["name"]
        for container in (*pod.get("initContainers", ()), *pod["containers"])
        if "HTTPS_PROXY" in {variable["name"] for variable in container.get("env", ())}
    }


@pytest.mark.holds("install.md", "Proxies replace no replica, and new replicas have them")
async def test_proxies_of_the_chart_replace_nothing_and_new_replicas_fetch_through_them(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    await scene.operator.kill()
    scene.config = parse_config({"images": IMAGES, "proxy": {"httpsProxy": "http://proxy:3128"}})
    await scene.start_operator()
    with scene.throughout(lambda: scene.uids() >= before and scene.two_serve()):
        await scene.pass_time(3600)
        assert scene.uids() == before
        scene.change(replicas=3)
        await scene.until(lambda: len(scene.pods()) == 3)
    (new,) = (pod for pod in scene.pods() if pod["metadata"]["uid"] not in before)
    assert with_proxy(new) == {"read-model-facts", "fetch-model"}
    routers = [one["spec"]["template"] for one in scene.api.listed(DEPLOYMENTS)]
    assert routers
    assert not any(map(with_proxy, routers))

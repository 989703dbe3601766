"""Watches with a list of namespaces, and what the metrics say of them."""

import asyncio

from prometheus_client import generate_latest

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.mirrors import Mirrors
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.resources import CONFIG_MAPS, NODES, PODS
from flotilla_operator.telemetry.metrics import Metrics
from tests.builders.world import IMAGES
from tests.support.fake_api import FakeApi


async def test_of_several_watches_of_a_resource_the_quietest_is_counted() -> None:
    config = parse_config({"images": IMAGES, "watchNamespaces": ["first", "second", "third"]})
    controllers, caches, metrics = [ModelReplicaSetController()], Caches(), Metrics()
    api = FakeApi()
    async with api.running(), api.client() as client:
        wakes = Wakes(controllers, caches, lambda _key: None)
        mirrors = Mirrors.of(controllers, config, caches, client, wakes, metrics)
        watches = [r for r in mirrors.reflectors if r.mirror.resource == CONFIG_MAPS]
        assert [watch.mirror.namespace for watch in watches] == ["first", "second", "third"]
        for everywhere in (PODS, NODES):
            (watch,) = [r for r in mirrors.reflectors if r.mirror.resource == everywhere]
            assert watch.mirror.namespace is None
        watches[1].active_at = asyncio.get_running_loop().time() - 500
        shown = generate_latest(metrics.registry).decode()
    (age,) = [line.split()[-1] for line in shown.splitlines() if 'age_seconds{resource="ConfigMap"}' in line]
    assert 500 <= float(age) < 560

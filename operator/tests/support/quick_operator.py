"""As a program: an operator with the controllers of the kinds in KINDS, which pauses for less than the one
that ships; see `Operators`.

How long the pauses are is asserted in the tests of the plans. Here a test would only wait for them.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from flotilla_operator.controllers import absent_nodes, secret_reader
from flotilla_operator.controllers.agent_fleet import decide as fleets
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.logs import configure_logs
from flotilla_operator.controllers.main import run_process
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.model_replica_set.decide import looks
from flotilla_operator.controllers.model_replica_set.observe import observe
from flotilla_operator.controllers.outside import Place
from flotilla_operator.controllers.vector_index import next_step as indexes
from flotilla_operator.controllers.vector_index import progress
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from flotilla_operator.replicas import backoff

CONTROLLERS: dict[str, Callable[[], Controller[Any, Any]]] = {
    "AgentFleet": AgentFleetController,
    "ModelReplicaSet": ModelReplicaSetController,
    "VectorIndex": partial(VectorIndexController, milvus_on_loopback=True),
}
PAUSES = (
    (absent_nodes, "MISSED_FOR_SECONDS", 2.0),
    (backoff, "BASE", timedelta(seconds=2)),
    (fleets, "LOOK_FOUND_SECONDS", 3.0),
    (fleets, "LOOK_MISSING_SECONDS", 1.0),
    (indexes, "LOOK_MISSING_SECONDS", 1.0),
    (looks, "LOOK_AGAIN_ABSENT_NODE_SECONDS", 1.0),
    (looks, "LOOK_FOUND_SECONDS", 3.0),
    (looks, "LOOK_MISSING_SECONDS", 1.0),
    (observe, "ROUTER_INTERVAL_SECONDS", 1.0),
    (progress, "RETRY_BASE", timedelta(seconds=2)),
    (secret_reader, "FOUND_SECONDS", 2.0),
    (secret_reader, "MISSING_SECONDS", 1.0),
)


def shorten_pauses() -> None:
    for module, name, pause in PAUSES:
        assert getattr(module, name) > pause
        setattr(module, name, pause)


def main() -> int:
    shorten_pauses()
    config = parse_config(json.loads(os.environ["TINY_CONFIG"]))
    configure_logs(config.log_level)
    controllers = [CONTROLLERS[kind]() for kind in os.environ["KINDS"].split(",")]
    return run_process(controllers, config, Place.from_environment(Path(os.environ["KUBECONFIG"])))


if __name__ == "__main__":
    sys.exit(main())

"""As a program: an operator with the controller of the kind in KIND alone; see `operator_process`."""

import json
import os
import sys
from pathlib import Path

from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.assembly import Place
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.logs import configure_logs
from flotilla_operator.controllers.main import run_process
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.vector_index.controller import VectorIndexController

CONTROLLERS = {
    "AgentFleet": AgentFleetController,
    "ModelReplicaSet": ModelReplicaSetController,
    "VectorIndex": VectorIndexController,
}


def main() -> int:
    config = parse_config(json.loads(os.environ["TINY_CONFIG"]))
    configure_logs(config.log_level)
    controller = CONTROLLERS[os.environ["KIND"]]()
    return run_process([controller], config, Place.from_environment(Path(os.environ["KUBECONFIG"])))


if __name__ == "__main__":
    sys.exit(main())

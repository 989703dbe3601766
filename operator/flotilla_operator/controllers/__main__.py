"""`python -m flotilla_operator.controllers`: the operator's process."""

import argparse
import sys
from pathlib import Path
from typing import Any

from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.config import read_config
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.errors import ConfigError
from flotilla_operator.controllers.logs import configure_logs
from flotilla_operator.controllers.main import run_process
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.outside import Place
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from flotilla_runtime.contract import CONFIG_PATH


def main() -> int:
    """Read the configuration and run the operator. The exit code is 0 after an orderly stop."""
    parser = argparse.ArgumentParser(
        prog="flotilla-operator", description="Run Flotilla's operator in the foreground."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(CONFIG_PATH),
        help="the JSON file with the operator's configuration, as the chart writes it (default: %(default)s)",
    )
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        help="the kubeconfig to use (default: $KUBECONFIG, else the pod's service account)",
    )
    parser.add_argument(
        "--milvus-on-loopback",
        action="store_true",
        help="remove from a Milvus on this machine; for tests alone",
    )
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there are no logs without a configuration
        return 2
    configure_logs(config.log_level)
    controllers: list[Controller[Any, Any]] = [
        ModelReplicaSetController(),
        VectorIndexController(milvus_on_loopback=arguments.milvus_on_loopback),
        AgentFleetController(),
    ]
    return run_process(controllers, config, Place.from_environment(arguments.kubeconfig))


if __name__ == "__main__":
    sys.exit(main())

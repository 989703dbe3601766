"""As a program: an operator with the AgentFleet's controller alone; see `operator_process`."""

import asyncio
import json
import os
import sys
from pathlib import Path

from flotilla_operator.cluster.lease import NotLeadingError
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.assembly import Place
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.logs import configure_logs
from flotilla_operator.controllers.main import run


def main() -> int:
    config = parse_config(json.loads(os.environ["TINY_CONFIG"]))
    configure_logs(config.log_level)
    try:
        asyncio.run(
            run([AgentFleetController()], config, Place.from_environment(Path(os.environ["KUBECONFIG"])))
        )
    except NotLeadingError:
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

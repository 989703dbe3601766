"""The command line `python -m hub_stub --root FOLDER --port N [--config FILE]`."""

import argparse
from pathlib import Path

from aiohttp import web

from hub_stub.configuration import Configuration
from hub_stub.repositories import Repositories
from hub_stub.server import Hub


def main() -> None:
    """Serve until stopped."""
    arguments = argparse.ArgumentParser(prog="python -m hub_stub", description=__doc__)
    arguments.add_argument(
        "--root", type=Path, required=True, help="the folder that holds ORGANISATION/NAME folders"
    )
    arguments.add_argument("--config", type=Path, help="a JSON file; see hub_stub.configuration")
    arguments.add_argument("--host", default=None)
    arguments.add_argument("--port", type=int, default=8080)
    options = arguments.parse_args()
    text = options.config.read_text() if options.config else "{}"
    hub = Hub(Repositories(options.root), Configuration.model_validate_json(text))
    web.run_app(hub.application(), host=options.host, port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()

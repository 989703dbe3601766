"""`python -m engine environment | models | serve`: install vLLM's CPU build, make its models, serve one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.environment import EngineError, ensure
from engine.models import MODELS, copy_models, ensure_models
from engine.serve import replace_this_process


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "environment", help="install vLLM's CPU build into the cache unless it is there; print its folder"
    )
    models = commands.add_parser(
        "models", help="make the two small models in the cache unless they are there; print their folder"
    )
    models.add_argument("--to", type=Path, help="a folder to copy both models into as well")
    serve = commands.add_parser(
        "serve", help="serve a model on 127.0.0.1; arguments not listed here are passed to vLLM"
    )
    serve.add_argument(
        "--model",
        required=True,
        help=f"the folder of a model, or one of {', '.join(model.name for model in MODELS)}",
    )
    serve.add_argument("--port", type=int, default=8000, help="the port to listen on (default: 8000)")
    return top


def serve(model: str, port: int, extra: Sequence[str]) -> None:
    """Serve a folder, or one of the prepared models with the arguments it needs."""
    engine = ensure()
    prepared = next((candidate for candidate in MODELS if candidate.name == model), None)
    if prepared is None:
        replace_this_process(engine, [model, *extra], port)
    else:
        folder = str(ensure_models() / prepared.name)
        named = ["--served-model-name", prepared.name, *prepared.serve_arguments]
        replace_this_process(engine, [folder, *named, *extra], port)


def main() -> int:
    """Run one command."""
    top = parser()
    options, extra = top.parse_known_args()
    if extra and options.command != "serve":
        top.error(f"unknown arguments: {' '.join(extra)}")
    try:
        if options.command == "environment":
            print(ensure().folder)
        elif options.command == "models":
            print(ensure_models())
            if options.to is not None:
                copy_models(options.to)
        else:
            serve(options.model, options.port, extra)
    except EngineError as problem:
        print(f"engine: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

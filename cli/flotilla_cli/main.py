"""The command `flotilla`, which kubectl also finds as `kubectl flotilla`.

flotilla ask QUESTION --fleet FLEET | --url URL         submit a task and print the answer
flotilla tasks --fleet FLEET | --url URL               list the tasks of a fleet
flotilla task show ID --fleet FLEET | --url URL        show a task with its timeline
flotilla approve|resolve|cancel|replay ID …            decide on a call, say whether one happened, end a task,
                                                       or make a new one with its results
flotilla rebalance NAME [--apply]                      show the moves that would place a set better, or make
them
"""

import argparse
import io
import json
import math
import sys
import uuid
from collections.abc import Sequence

from flotilla_cli.gateways import connected
from flotilla_cli.kubectl import KubectlError, kubectl_of
from flotilla_cli.rebalance import RebalanceError, asked, table
from flotilla_cli.task_commands import ERRORS, add_commands, add_where, complaint, where_of
from flotilla_cli.task_texts import paragraphs, plain
from flotilla_cli.tasks import ask


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(prog="flotilla", description="Command line for Flotilla.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_ask(commands)
    add_commands(commands)
    _add_rebalance(commands)
    return top


def seconds(text: str) -> float:
    """A time to wait, as somebody types it."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, such as 300")
    return number


def _add_ask(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    asking = commands.add_parser("ask", help="submit a task to a fleet's gateway and print the answer")
    asking.add_argument("question", help="the question to ask")
    asking.add_argument("--agent", help="the agent of the fleet that is asked (default: its own)")
    add_where(asking)
    asking.add_argument(
        "--timeout-seconds",
        type=seconds,
        default=300.0,
        help="give up when the task has not ended after this time (default: %(default)g)",
    )
    asking.set_defaults(run=run_ask)


def _add_rebalance(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    moving = commands.add_parser(
        "rebalance", help="show the moves of replicas that would raise a set's placement score, or make them"
    )
    moving.add_argument("name", help="the name of the ModelReplicaSet")
    moving.add_argument(
        "--namespace", "-n", help="the namespace of the set (default: that of the kubeconfig's context)"
    )
    moving.add_argument("--context", help="the context of the kubeconfig to use (default: the current one)")
    moving.add_argument(
        "--apply",
        action="store_true",
        help="make the moves, one drained replica at a time, and wait until they are done",
    )
    moving.add_argument(
        "--timeout-seconds",
        type=seconds,
        default=3600.0,
        help="stop waiting after this time (default: %(default)g)",
    )
    moving.set_defaults(run=run_rebalance)


def run_ask(arguments: argparse.Namespace) -> int:
    """Print the answer and its sources; the exit status is 1 when the task ends without an answer."""
    try:
        with connected(where_of(arguments)) as client:
            answer = ask(
                client,
                arguments.question,
                agent=arguments.agent,
                timeout_seconds=arguments.timeout_seconds,
                tell=lambda text: print(f"flotilla: {plain(text)}", file=sys.stderr),
            )
    except ERRORS as problem:
        print(f"flotilla: {plain(complaint(problem))}", file=sys.stderr)
        return 1
    if arguments.output == "json":
        print(json.dumps(answer.task, indent=2))
        return 0
    print(paragraphs(answer.text))
    for source in answer.sources:
        print(f"  source: {plain(source)}")
    return 0


def run_rebalance(arguments: argparse.Namespace) -> int:
    """Print the moves, and with --apply their progress; 1 when the operator refuses or stops them."""
    value = f"{'apply' if arguments.apply else 'show'}:{uuid.uuid4().hex[:8]}"
    good, shown = False, ""
    try:
        for progress in asked(
            kubectl_of(arguments.context),
            arguments.name,
            value,
            namespace=arguments.namespace,
            timeout_seconds=arguments.timeout_seconds,
        ):
            now = table(progress.moves)
            if now and not shown:
                print(now)
            print(f"{progress.phase}: {progress.message}")
            good, shown = progress.good, shown or now
    except (RebalanceError, KubectlError) as problem:
        print(f"flotilla: {problem}", file=sys.stderr)
        return 1
    return 0 if good else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whose terminal may lack letters of ours
            stream.reconfigure(errors="backslashreplace")
    arguments = parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())

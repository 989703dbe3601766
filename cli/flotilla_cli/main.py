"""`flotilla`, also found by kubectl as `kubectl flotilla`.

flotilla ask --url URL [--token-file FILE] QUESTION    submit a task to a fleet's gateway and print the answer
flotilla rebalance NAME [--apply]                      show, or carry out, the moves that place a set better
"""

import argparse
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import httpx

from flotilla_cli.rebalance import RebalanceError, asked, kubectl_of, table
from flotilla_cli.tasks import TaskFailedError, ask


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="flotilla", description="Work with Flotilla.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    asking = commands.add_parser("ask", help="submit a task to a fleet's gateway and print the answer")
    asking.add_argument("question")
    asking.add_argument("--url", required=True, help="the gateway's address, as in the fleet's status.url")
    asking.add_argument(
        "--token-file", type=Path, help="file with the bearer token; - reads it from standard input"
    )
    asking.add_argument("--timeout-seconds", type=float, default=300.0)
    asking.set_defaults(run=run_ask)
    moving = commands.add_parser(
        "rebalance", help="show, or carry out, the moves of replicas that raise a set's placement score"
    )
    moving.add_argument("name", help="the ModelReplicaSet")
    moving.add_argument("--namespace", "-n")
    moving.add_argument("--context", help="of the kubeconfig; kubectl's own default otherwise")
    moving.add_argument(
        "--apply", action="store_true", help="carry the moves out, one drained replica at a time, and wait"
    )
    moving.add_argument("--timeout-seconds", type=float, default=3600.0)
    moving.set_defaults(run=run_rebalance)
    return top


def run_ask(arguments: argparse.Namespace) -> int:
    """Print the answer and the documents it rests on; 1 when the task ends without one."""
    try:
        headers = credentials(arguments.token_file)
    except (OSError, UnicodeDecodeError) as problem:
        print(f"flotilla: --token-file {arguments.token_file} cannot be read: {problem}", file=sys.stderr)
        return 1
    try:
        with httpx.Client(base_url=arguments.url, headers=headers, timeout=30) as client:
            answer = ask(client, arguments.question, timeout_seconds=arguments.timeout_seconds)
    except (TaskFailedError, httpx.HTTPError) as problem:
        print(f"flotilla: {problem}", file=sys.stderr)
        return 1
    print(answer.text)
    for source in answer.sources:
        print(f"  source: {source}")
    return 0


def run_rebalance(arguments: argparse.Namespace) -> int:
    """Print the moves, and with --apply each step of theirs; 1 when the operator refuses or stops."""
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
    except RebalanceError as problem:
        print(f"flotilla: {problem}", file=sys.stderr)
        return 1
    return 0 if good else 1


def credentials(token_file: Path | None) -> dict[str, str]:
    """The header that proves who asks; none without a token."""
    if token_file is None:
        return {}
    token = sys.stdin.read() if str(token_file) == "-" else token_file.read_text(encoding="utf-8")
    return {"Authorization": f"Bearer {token.strip()}"}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and return the exit status."""
    arguments = parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())

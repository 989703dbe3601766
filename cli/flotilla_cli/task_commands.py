"""The commands about tasks: tasks, task show, approve, resolve, cancel and replay.

Each asks the gateway once or twice, and prints a text or, with `-o json`, the gateway's own JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx2

from flotilla_cli.answers import Page, Receipt, Task
from flotilla_cli.approval_texts import approval_text, question
from flotilla_cli.gateways import GatewayError, Where, connected
from flotilla_cli.kubectl import KubectlError
from flotilla_cli.task_texts import plain, task_page, task_table
from flotilla_cli.tasks import TaskFailedError, approval_command, checked, new_key, patiently
from flotilla_cli.tokens import TokenError
from flotilla_runtime.contract.failure_texts import what_failed

Commands = Any  # argparse's action of subcommands, whose type is not public
Asked = Callable[[httpx2.Client, argparse.Namespace], tuple[dict[str, Any], str]]
REPEAT_FOR_SECONDS: Final = 60.0
SPARE_SECONDS: Final = 120.0  # for which a token is good beyond the longest wait
ERRORS: Final = (
    *(GatewayError, KubectlError, TokenError, TaskFailedError),
    *(httpx2.HTTPError, httpx2.InvalidURL, UnicodeError),
)


def add_commands(commands: Commands) -> None:
    """Add the commands about tasks."""
    _add_list(commands)
    showing = commands.add_parser("task", help="show one task").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _command(showing, "show", show, "show a task with its timeline")
    approving = _command(commands, "approve", approve, "decide on a call that waits for approval")
    approving.add_argument(
        "--call", help="the id of the call (without it, the call is shown, and you are asked)"
    )
    approving.add_argument("--refuse", action="store_true", help="refuse the call instead of approving it")
    approving.add_argument("--comment", help="why, for the agent and whoever reads the task")
    resolving = _command(commands, "resolve", resolve, "say whether a call happened of which nobody knows")
    resolving.add_argument("--call", help="the id of the call (default: the one that the task waits for)")
    said = resolving.add_mutually_exclusive_group(required=True)
    said.add_argument("--happened", action="store_true", help="the call happened")
    said.add_argument(
        "--not-happened",
        action="store_true",
        help="it did not: it is made again, or asked for anew if somebody had to approve it",
    )
    resolving.add_argument("--result", help="what the call gave, as JSON")
    _command(commands, "cancel", cancel, "cancel a task")
    replaying = _command(commands, "replay", replay, "make a new task with the results of an ended one")
    replaying.add_argument("--from", dest="start", metavar="CALL", help="the first call that is made anew")
    replaying.add_argument(
        "--repeat-effects", action="store_true", help="repeat calls of tools that change something"
    )


def tasks(client: httpx2.Client, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """A page of tasks."""
    query = {
        "status": arguments.status,
        "waitsFor": arguments.waits_for,
        "tenant": arguments.tenant,
        "limit": arguments.limit,
        "cursor": arguments.cursor,
    }
    page = checked(
        client.get("/v1/tasks", params={name: value for name, value in query.items() if value is not None}),
        Page,
    )
    more = page.get("nextCursor")
    return page, task_table(page["tasks"]) + (f"\nmore: --cursor {plain(more)}" if more else "")


def show(client: httpx2.Client, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """One task."""
    task = _task(client, arguments)
    return task, task_page(task)


def approve(client: httpx2.Client, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Decide on a call that is named, or that is shown to who decides."""
    call = arguments.call or _agreed_call(_task(client, arguments), refuse=arguments.refuse)
    body = {"call": call, "approved": not arguments.refuse}
    if arguments.comment is not None:
        body["comment"] = arguments.comment
    receipt = checked(client.post(f"/v1/tasks/{_id(arguments)}/approve", json=body), Receipt)
    done = "refused" if arguments.refuse else "approved"
    return receipt, f"{done} {plain(call)}; the task is {plain(receipt['status'])}"


def resolve(client: httpx2.Client, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Say whether a call happened."""
    body = {"outcome": "Happened" if arguments.happened else "NotHappened"}
    if arguments.result is not None:
        try:
            body["result"] = json.loads(arguments.result)
            json.dumps(body["result"], allow_nan=False)  # Python reads NaN, which is no JSON
        except ValueError as problem:
            raise TaskFailedError(f"--result is not JSON: {problem}") from None
    body["call"] = arguments.call or _unknown_effect(_task(client, arguments))
    receipt = checked(client.post(f"/v1/tasks/{_id(arguments)}/resolve", json=body), Receipt)
    return receipt, f"{plain(body['call'])} {body['outcome']}; the task is {plain(receipt['status'])}"


def cancel(client: httpx2.Client, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Cancel a task."""
    receipt = checked(client.post(f"/v1/tasks/{_id(arguments)}/cancel"), Receipt)
    if receipt["status"] == "Cancelled":
        return receipt, "cancelled"
    return receipt, "the task runs; its worker will stop it"


def replay(client: httpx2.Client, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Make a new task with the results of an ended one; the key keeps a repeated request from making two."""
    body: dict[str, Any] = {"repeatEffects": arguments.repeat_effects, "idempotencyKey": new_key()}
    if arguments.start is not None:
        body["from"] = arguments.start
    path, until = f"/v1/tasks/{_id(arguments)}/replay", time.monotonic() + REPEAT_FOR_SECONDS
    receipt = patiently(
        lambda: client.post(path, json=body), Receipt, until=until, clock=time.monotonic, sleep=time.sleep
    )
    return receipt, f"the new task is {plain(receipt['id'])}"


def run_of(ask: Asked) -> Callable[[argparse.Namespace], int]:
    """The run of a command: 1 where the gateway refuses or cannot be reached."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            with connected(where_of(arguments)) as client:
                answer, text = ask(client, arguments)
        except ERRORS as problem:
            print(f"flotilla: {plain(complaint(problem))}", file=sys.stderr)
            return 1
        print(json.dumps(answer, indent=2) if arguments.output == "json" else text)
        return 0

    return run


def complaint(problem: Exception) -> str:
    """An error in words for who typed the command."""
    match problem:
        case httpx2.InvalidURL() | UnicodeError():  # the latter of a host that no DNS can have
            return f"--url is no URL: {problem}"
        case httpx2.HTTPError():
            return f"the gateway cannot be reached: {what_failed(problem)}"
    return str(problem)


def _add_list(commands: Commands) -> None:
    listing = commands.add_parser("tasks", help="list the tasks of a fleet")
    listing.add_argument("--status", help="only tasks with this status, such as Failed")
    listing.add_argument("--waits-for", help="only tasks that wait for this: Approval, Signal, Effect, …")
    listing.add_argument("--tenant", help="only tasks of this tenant")
    listing.add_argument("--limit", type=int, help="how many, 200 at most (default: 50)")
    listing.add_argument("--cursor", help="where the page before ended")
    add_where(listing)
    listing.set_defaults(run=run_of(tasks))


def _command(commands: Commands, name: str, ask: Asked, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    command.add_argument("id", help="the id of the task")
    add_where(command)
    command.set_defaults(run=run_of(ask))
    return command


def add_where(command: argparse.ArgumentParser) -> None:
    """Add the options that say which gateway is asked, and as whom."""
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--fleet", "-f", help="the name of the AgentFleet, which kubectl finds")
    where.add_argument("--url", help="the address of the gateway, as in the fleet's status.url")
    command.add_argument(
        "--namespace", "-n", help="the namespace of the fleet (default: that of the kubeconfig's context)"
    )
    command.add_argument("--context", help="the context of the kubeconfig to use (default: the current one)")
    who = command.add_mutually_exclusive_group()
    who.add_argument(
        "--account",
        help="a service account of the fleet's namespace, for which kubectl makes a token that this gateway "
        "alone accepts",
    )
    who.add_argument(
        "--with-my-own-token",
        action="store_true",
        help="send the token of your kubeconfig. The gateway, and whatever answers in its place, sees all "
        "of it: it is good for the API server, so a gateway that was taken over could act as you. It is not "
        "sent over plain HTTP to another machine; the port that --fleet forwards goes through the API "
        "server's TLS. The gateway takes it only where the chart says so",
    )
    who.add_argument(
        "--token-file", type=Path, help="a file with the bearer token; - reads it from standard input"
    )
    command.add_argument("--ca-file", type=Path, help="a PEM file with the authorities to trust for https")
    command.add_argument("--output", "-o", choices=["text", "json"], default="text", help="how to print")


def where_of(arguments: argparse.Namespace) -> Where:
    """The gateway and the caller that the options of `add_where` name."""
    return Where(
        url=arguments.url,
        fleet=arguments.fleet,
        namespace=arguments.namespace,
        context=arguments.context,
        token_file=arguments.token_file,
        account=arguments.account,
        with_own_token=arguments.with_my_own_token,
        ca_file=arguments.ca_file,
        token_seconds=SPARE_SECONDS + getattr(arguments, "timeout_seconds", 0),
    )


def _id(arguments: argparse.Namespace) -> str:
    """The id of the task, which becomes a part of a path."""
    if not arguments.id.isalnum():
        raise TaskFailedError(f"{arguments.id!r} is no id of a task; flotilla tasks lists them")
    return str(arguments.id)


def _task(client: httpx2.Client, arguments: argparse.Namespace) -> dict[str, Any]:
    return checked(client.get(f"/v1/tasks/{_id(arguments)}"), Task)


def _agreed_call(task: dict[str, Any], *, refuse: bool) -> str:
    """The only call that waits, once somebody at a terminal has seen it and says yes."""
    approvals = task.get("approvals") or []
    if not approvals:
        raise TaskFailedError(f"task {task['id']} is {task['status']}; nothing of it waits for approval")
    for approval in approvals:
        print(approval_text(task, approval), file=sys.stderr)
    option = " --refuse" if refuse else ""
    if len(approvals) > 1:
        raise TaskFailedError(f"nothing is decided: several calls wait; choose one by --call CALL{option}")
    call = str(approvals[0]["call"])
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        command = approval_command(task["id"], call)
        raise TaskFailedError(f"nothing is decided, as nobody can be asked; run {command}{option}")
    if not _says_yes(question(task, approvals[0], refuse=refuse)):
        raise TaskFailedError("nothing is decided")
    return call


def _says_yes(question: str) -> bool:
    print(f"{question} (y/n): ", end="", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return False


def _unknown_effect(task: dict[str, Any]) -> str:
    waits = task.get("waitsFor") or {}
    if waits.get("kind") != "Effect":
        raise TaskFailedError(
            f"task {task['id']} is {task['status']}; it does not wait to be told whether a call happened"
        )
    return str(waits["call"])

"""The rights of a fleet's users of Redis, beside what the scripts and the store call.

That they are enough is shown by every test with a real Redis, whose default user has no others.
"""

import re
from importlib.resources import files

import pytest

from flotilla_runtime.agent.store import script_values, tool_requests
from flotilla_runtime.contract.redis_rights import EXECUTOR_COMMANDS, TASK_COMMANDS, acl_rights

CALLED = re.compile(r"redis\.p?call\('([A-Z]+)'")
OF_THE_CLIENT = {
    *("ping", "evalsha", "script|load", "script|exists", "multi", "exec", "discard", "info", "wait", "mget"),
    *("blpop", "lpop", "srandmember", "time", "ssubscribe", "sunsubscribe", "pubsub|shardnumsub"),
}
OF_EXECUTORS = {"ping", "evalsha", "blpop", "lpop", "time"}


def called(*sources: str) -> set[str]:
    return {command.lower() for source in sources for command in CALLED.findall(source)}


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The users of Redis may call what our programs call, and nothing else",
)
def test_the_rights_are_the_commands_of_the_scripts_and_the_store() -> None:
    """A command that nobody calls any more is no right either."""
    folder = files("flotilla_runtime.agent.store") / "scripts"
    tasks = called(*(one.read_text() for one in folder.iterdir() if one.name.endswith(".lua")))
    executors = called(*map(tool_requests.script_source, tool_requests.SCRIPTS))
    assert (tasks | executors) - OF_THE_CLIENT == TASK_COMMANDS - OF_THE_CLIENT
    assert executors - OF_EXECUTORS == EXECUTOR_COMMANDS - OF_EXECUTORS


@pytest.mark.parametrize("name", [*script_values.SCRIPTS, *script_values.NEED_PRELUDE_ALONE])
def test_every_script_for_tasks_begins_with_what_an_executor_may_not_call(name: str) -> None:
    first = CALLED.search(script_values.script_source(name))
    assert first is not None
    assert first[1].lower() not in EXECUTOR_COMMANDS


def test_the_rights_name_what_is_allowed() -> None:
    assert acl_rights({"b", "a|c"}) == "-@all +a|c +b"

"""No unit test waits for less than five seconds by the real clock, since a machine may halt for so long.

Such a wait is a time-out, a deadline or a bound on the time that passed, also one that is given to the code
under test. On a virtual clock it may be as short as it likes. Where a test is about a time-out that must pass
since nothing answers, a short one is right if nothing else races it: it stands in RUN_OUT with the reason.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("operator/tests", "runtime/tests", "cli/tests", "e2e/tests")
SHORTEST_SECONDS = 5
VIRTUAL = "tests.support.virtual_time"
WITH_SERVERS = frozenset({"apiserver", "services", "cluster", "rare"})
TIME_IS_THE_ARGUMENT = {"timeout": 0, "wait_for": 1, "eventually": 1, "until": 1, "until_told": 1}
NAMES_A_WAIT = re.compile(
    r"^(?!shutdown)(|.*_)(timeout|deadline|silence|within|patience)(_seconds|_ms|)$"
    r"|^(first_token|between_tokens|total|max_wall|blocked_after|answer|lease)_seconds$"
)
READS_A_CLOCK = re.compile(r"(monotonic|perf_counter|\.time)\(\)")
CAN_WAIT = re.compile(r"\b(asyncio|async def|time\.|subprocess|threading|eventually)")
ONLY_SERVERS = "only tests with servers use it"
RUNS_OUT = "nothing answers, so it must pass, and nothing else ends the wait"

# The file, the function or class (empty for the module), and why a slow machine changes nothing.
CLUSTER, AGENT, ROUTER = "operator/tests/cluster", "runtime/tests/agent", "runtime/tests/router"
NO_RENEWAL = "every renewal fails, for as long as it takes; the clock of the fence is not read before"
ASKED_AGAIN = "who answers too late is asked again until it answers in time"
RUN_OUT: dict[tuple[str, str], str] = {
    (f"{CLUSTER}/test_client.py", "test_a_request_that_hangs_ends_at_its_time_limit"): RUNS_OUT,
    (f"{CLUSTER}/test_lease.py", "test_a_client_that_raises_anything_at_all_is_a_failed_renewal"): NO_RENEWAL,
    (
        f"{CLUSTER}/test_lease.py",
        "test_renewals_that_fail_lose_the_lease_before_another_may_take_it",
    ): NO_RENEWAL,
    (f"{CLUSTER}/test_lease.py", "test_a_lease_that_hangs_while_it_is_sought_is_asked_again"): ASKED_AGAIN,
    (f"{CLUSTER}/test_reflector.py", "test_a_silent_watch_is_taken_up_again_where_it_ended"): ASKED_AGAIN,
    (
        f"{CLUSTER}/test_reflector.py",
        "test_what_an_api_server_does_not_serve_is_empty_until_it_is_served",
    ): ASKED_AGAIN,
    (f"{ROUTER}/test_pod_watch.py", "test_a_silent_watch_is_taken_for_dead"): ASKED_AGAIN,
    (
        f"{ROUTER}/test_engine_looks.py",
        "test_an_engine_that_stalls_has_no_kv_usage_not_even_that_of_before",
    ): ASKED_AGAIN,
    (
        f"{ROUTER}/test_engine_looks.py",
        "test_an_engine_that_stalls_or_lies_is_never_called_idle",
    ): ASKED_AGAIN,
    (f"{AGENT}/executor/test_executor.py", "executing"): "nothing takes a lease away but the test",
    (
        f"{AGENT}/executor/test_executor.py",
        "test_functions_that_do_not_end_leave_no_thread_and_their_requests_to_others",
    ): RUNS_OUT,
    (
        f"{AGENT}/test_unsafe_calls.py",
        "test_a_function_over_time_is_unknown_and_one_without_a_thread_was_not_begun",
    ): RUNS_OUT,
    (
        f"{AGENT}/traces/test_export.py",
        "test_a_slow_receiver_keeps_nobody_waiting_and_fills_no_memory",
    ): RUNS_OUT,
    (f"{AGENT}/traces/test_export.py", "test_nobody_listens"): RUNS_OUT,
    (f"{AGENT}/models/test_client.py", ""): "SHORT: nothing more comes, so it must pass",
    (f"{AGENT}/models/test_client_limits.py", ""): "SHORT: nothing more comes, so it must pass",
    (
        f"{AGENT}/models/test_client_limits.py",
        "test_all_tries_and_pauses_share_the_time_of_the_call",
    ): RUNS_OUT,
    (
        f"{AGENT}/models/test_client_and_double.py",
        "test_a_stream_without_end_ends_with_the_time_of_the_call",
    ): "the stream has no end, so it must pass",
    ("runtime/tests/agent_support/memory_requests.py", "MemoryRequests"): "nobody heard is asked again",
    ("runtime/tests/agent_support/patterning.py", "agent"): ONLY_SERVERS,
    ("runtime/tests/gateway/conftest.py", "Fleet"): ONLY_SERVERS,
    ("runtime/tests/s3_servers.py", "S3Server"): ONLY_SERVERS,
}


def numbers(tree: ast.Module) -> dict[str, float]:
    """The constants of a module that are numbers."""
    found: dict[str, float] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            number = value_of(node.value, found)
            if number is not None:
                found[node.targets[0].id] = number
    return found


def value_of(node: ast.expr, constants: Mapping[str, float]) -> float | None:
    """The number that an expression is, as far as that can be read."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return constants.get(name)
        case ast.IfExp(body=body, orelse=orelse):
            either = [value for one in (body, orelse) if (value := value_of(one, constants)) is not None]
            return min(either, default=None)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as by, right=right):
            first, second = value_of(left, constants), value_of(right, constants)
            if first is None or second is None:
                return None
            return first * second if isinstance(by, ast.Mult) else first / second
    return None


def waits(node: ast.AST, constants: Mapping[str, float]) -> Iterator[float]:
    """The times that this node waits, in seconds."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = TIME_IS_THE_ARGUMENT.get(name)
        given = [node.args[place]] if place is not None and len(node.args) > place else []
        given += [one.value for one in node.keywords if one.arg and NAMES_A_WAIT.search(one.arg)]
        yield from (value for one in given if (value := value_of(one, constants)) is not None)
    if isinstance(node, ast.Compare) and any(isinstance(by, ast.Lt | ast.LtE) for by in node.ops):
        limit = value_of(node.comparators[-1], constants)
        if limit is not None and READS_A_CLOCK.search(ast.unparse(node)):
            yield limit


def is_marked(node: ast.AST) -> bool:
    """Whether it is marked as a test that needs servers."""
    text = ast.unparse(node)
    return any(f"mark.{mark}" in text for mark in WITH_SERVERS)


def short_waits(text: str) -> Iterator[tuple[str, float]]:
    """Where a file waits for too short a time: the outermost function or class, and how long."""
    tree = ast.parse(text)
    if (
        not CAN_WAIT.search(text)
        or VIRTUAL in text
        or any(is_marked(one) for one in tree.body if _sets_marks(one))
    ):
        return
    constants = numbers(tree)
    for part in tree.body:
        if any(is_marked(one) for one in getattr(part, "decorator_list", ())):
            continue
        for node in ast.walk(part):
            for seconds in waits(node, constants):
                if 0 < seconds < SHORTEST_SECONDS:
                    yield getattr(part, "name", ""), seconds


def _sets_marks(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"


def on_virtual_clock(path: Path) -> bool:
    """Whether the tests of its folder run on a loop whose clock jumps."""
    conftests = [folder / "conftest.py" for folder in path.parents if folder != ROOT]
    return any(one.exists() and VIRTUAL in one.read_text() for one in conftests)


def found() -> set[tuple[str, str]]:
    """All waits that are too short."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {
        (path.relative_to(ROOT).as_posix(), place)
        for path in paths
        if path != Path(__file__) and not on_virtual_clock(path)
        for place, _ in short_waits(path.read_text(encoding="utf-8"))
    }


def test_no_unit_test_waits_for_less_than_five_seconds() -> None:
    assert found() == set(RUN_OUT), "wait for longer, on a virtual clock, or say in RUN_OUT why this is safe"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("async with asyncio.timeout(2): pass", [2], id="asyncio.timeout"),
        pytest.param("asyncio.wait_for(task, 1)", [1], id="wait_for"),
        pytest.param("asyncio.wait_for(task, timeout=1)", [1], id="by its name"),
        pytest.param("LONG = 0.5\neventually(holds, LONG)", [0.5], id="a constant"),
        pytest.param("asyncio.run(a(request_timeout_seconds=0.1))", [0.1], id="a setting"),
        pytest.param("asyncio.run(a(timeout_seconds=1 if hangs else 30))", [1], id="one of two"),
        pytest.param("assert time.monotonic() - began < 2", [2], id="a bound on what passed"),
        pytest.param("asyncio.timeout(2 * 60)", [], id="two minutes"),
        pytest.param("assert 1 <= time.monotonic() - began", [], id="it lasted at least so long"),
        pytest.param("pytestmark = pytest.mark.services\nasyncio.timeout(1)", [], id="with servers"),
        pytest.param("@pytest.mark.services\ndef test_a():\n asyncio.timeout(1)", [], id="one with servers"),
        pytest.param(f"from {VIRTUAL} import run\nasyncio.timeout(1)", [], id="on a virtual clock"),
    ],
)
def test_a_short_wait_is_found_in_whatever_form(text: str, seconds: list[float]) -> None:
    assert [wait for _, wait in short_waits(text)] == seconds

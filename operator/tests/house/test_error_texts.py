"""No text of another library's error gets into a condition, an event, a log or a termination message.

It may have a header, a URL with a password, or a body. `what_failed` says in words of ours what went wrong.
The texts of our own classes are made for people, so they may be quoted.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("runtime/flotilla_runtime", "operator/flotilla_operator", "cli/flotilla_cli")
ANY = frozenset({"Exception", "BaseException"})
OWN_CODE = "the words of the fleet's own code, for who may read the task"
OF_JSON = "a parser of JSON quotes one character at most"
OF_PROGRAM = "the names of a function's arguments, or of a graph's nodes"
TYPED = "what a person typed, on their own terminal"
FAILURE_TEXTS = "runtime/flotilla_runtime/contract/failure_texts.py"
AGENT = "runtime/flotilla_runtime/agent"
# A file and a function, and why a text that is not of our own classes may stand there.
ALLOWED = {
    (FAILURE_TEXTS, "what_failed"): "it tells texts of ours from others",
    (FAILURE_TEXTS, "_wrapped"): "it looks for an error, and tells nothing",
    ("cli/flotilla_cli/gateways.py", "_trusted"): TYPED,
    ("cli/flotilla_cli/task_commands.py", "complaint"): TYPED,
    ("cli/flotilla_cli/task_commands.py", "resolve"): TYPED,
    (f"{AGENT}/builtin/delegating.py", "asked_agent"): "the limit of a task's length, told to the model",
    (f"{AGENT}/graphs/compiling.py", "agent_of"): OF_PROGRAM,
    (f"{AGENT}/graphs/running.py", "_steps"): "the number of steps",
    (f"{AGENT}/models/answers.py", "_parsed"): OF_JSON,
    (f"{AGENT}/models/answers.py", "parsed_arguments"): OF_JSON,
    (f"{AGENT}/models/structured.py", "structured_value"): f"{OF_JSON}; and a reference of the user's schema",
    (f"{AGENT}/patterns/plans.py", "_problem_of"): OWN_CODE,
    (f"{AGENT}/patterns/search.py", "searched"): OWN_CODE,
    (f"{AGENT}/store/redis_errors.py", "as_unavailable"): "it looks for Redis' code",
    (f"{AGENT}/store/redis_errors.py", "redis_said"): "Redis' code alone is told",
    (f"{AGENT}/tools/http_tool.py", "_value"): OF_JSON,
    (f"{AGENT}/tools/python_tool.py", "_model"): OF_PROGRAM,
    (f"{AGENT}/tools/python_tool.py", "python_function"): OF_PROGRAM,
    (f"{AGENT}/tools/results.py", "document_of"): "the type that JSON does not have",
    (f"{AGENT}/tools/runner.py", "_returned"): OWN_CODE,
    (f"{AGENT}/worker/loading.py", "entrypoint"): OF_PROGRAM,
    (f"{AGENT}/worker/loading.py", "load_sql"): "our own words about the user's statement",
    ("runtime/flotilla_runtime/indexing/formats/pdf.py", "parse_pdf"): "PDFium's code for what is broken",
    (
        "runtime/flotilla_runtime/router/replies.py",
        "read_observed",
    ): "a column or a row of HAProxy's own tables",
    ("runtime/flotilla_runtime/router/replies.py", "read_process"): "the name of a row that is looked for",
}


def handled(node: ast.expr | None) -> set[str]:
    """The names of the classes that an `except` or an annotation names."""
    if node is None:
        return {"BaseException"}
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    if isinstance(node, ast.BinOp):
        return handled(node.left) | handled(node.right)
    return {part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in parts}


def classes_of_ours(trees: dict[str, ast.Module]) -> set[str]:
    """The names of the classes that are defined in our packages."""
    return {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def quotes_of(name: str, body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Where the text of the error of this name is made into a text."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.FormattedValue) and is_name(node.value, name):
                yield node
            if isinstance(node, ast.Call) and makes_text(node, name):
                yield node
            if isinstance(node, ast.Attribute) and node.attr == "args" and is_name(node.value, name):
                yield node


def makes_text(call: ast.Call, name: str) -> bool:
    is_made = getattr(call.func, "id", "") in {"str", "repr", "format"}
    return is_made and any(is_name(argument, name) for argument in call.args)


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def quotes_in(path: str, tree: ast.Module, ours: set[str]) -> Iterator[tuple[str, str, int]]:
    """The path, the function and the line of every text of an error that is not of our own classes."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        caught = [
            (node.name, handled(node.type), node.body)
            for node in ast.walk(function)
            if isinstance(node, ast.ExceptHandler) and node.name is not None
        ]
        given = [
            (argument.arg, handled(argument.annotation), function.body)
            for argument in [*function.args.args, *function.args.kwonlyargs]
            if argument.annotation is not None and is_error(handled(argument.annotation))
        ]
        for name, kinds, body in [*caught, *given]:
            if not kinds <= ours:
                for node in quotes_of(name, body):
                    yield path, function.name, getattr(node, "lineno", 0)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"format_exc", "format_exception", "print_exc"}:
            yield path, "", node.lineno
        if isinstance(node, ast.Attribute) and node.attr in {"format_exc_info", "dict_tracebacks"}:
            yield path, "", node.lineno


def is_error(kinds: set[str]) -> bool:
    return any(kind.endswith(("Error", "Exception")) for kind in kinds)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    files = (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def test_no_error_of_a_library_is_quoted(trees: dict[str, ast.Module]) -> None:
    ours = classes_of_ours(trees)
    quotes = [quote for path, tree in trees.items() for quote in quotes_in(path, tree, ours)]
    found = {(path, function): line for path, function, line in quotes}
    new = [f"{place[0]}:{line} in {place[1]}" for place, line in found.items() if place not in ALLOWED]
    assert not new, "say what_failed(error) instead, or write down why its text holds no secret"
    assert not ALLOWED.keys() - found.keys(), "these are allowed and not there"


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n try: g()\n except Exception as e: say(str(e))",
        "def f():\n try: g()\n except (OSError, httpx2.HTTPError) as e: say(f'no: {e!r}')",
        "async def f():\n try: g()\n except ValueError as e: raise OurError(f'no: {e}') from e",
        "def f(problem: Exception): return repr(problem)",
        "def f(problem: OSError | ValueError): return problem.args[0]",
        "import traceback\ndef f(): return traceback.format_exc()",
    ],
)
def test_a_new_quote_is_noticed(text: str) -> None:
    assert list(quotes_in("x.py", ast.parse(text), {"OurError"}))


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n try: g()\n except OurError as e: say(str(e))",
        "def f():\n try: g()\n except Exception as e: say(what_failed(e))",
        "def f():\n try: g()\n except OSError as e: say(e.strerror)",
    ],
)
def test_what_is_said_in_words_of_ours_is_let_through(text: str) -> None:
    assert not list(quotes_in("x.py", ast.parse(text), {"OurError"}))

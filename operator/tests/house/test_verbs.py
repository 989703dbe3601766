"""The four verbs of a reconcile stay apart in the packages of KINDS, with proof that each rule can fail.

A verb is a file or a folder. Only `act` makes writes. Only `observe`, `references` and `wakes` read caches,
and in the controller the methods `wakes` and `references`. Only those, `remembered` and `jobs` open a status.
No module reads a clock.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CONTROLLERS = Path(__file__).parents[2] / "flotilla_operator" / "controllers"
KINDS = ("agent_fleet", "model_replica_set", "vector_index")

WRITES = frozenset({"Apply", "Create", "Delete", "DryRun", "JsonPatch"})
CACHES_MODULE = "flotilla_operator.cluster.caches"
PURE_IN_CACHES = frozenset({"controller_uid"})  # a function of a manifest
CACHES = frozenset({"caches", "Caches", "Store"})
CLOCK_MODULES = frozenset({"time"})
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
RANDOM_MODULES = frozenset({"random", "secrets", "uuid"})

# The names of files and folders in the package of a kind that may do it.
MAY_WRITE = frozenset({"act"})
MAY_BE_RANDOM = frozenset({"act"})
MAY_READ_CACHES = frozenset({"observe", "references", "wakes"})
MAY_READ_CACHES_IN = {"controller": frozenset({"wakes", "references"})}
# `jobs` reads the statuses of Jobs and their pods, `remembered` that of the object itself.
MAY_OPEN_STATUS = frozenset({"observe", "references", "remembered", "jobs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module of a kind; `part` is the file or the folder that it is in."""

    name: str
    part: str
    tree: ast.Module


def modules(kind: str) -> list[Module]:
    package = CONTROLLERS / kind
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        tree = ast.parse(path.read_text())
        found.append(Module(name=place.as_posix(), part=place.parts[0].removesuffix(".py"), tree=tree))
    assert {"observe", "decide", "act", "tell", "controller"} <= {module.part for module in found}
    return found


def types_only(tree: ast.AST) -> set[ast.AST]:
    """Names that only name a type: annotations, the types of `isinstance`, and the classes of patterns."""
    places: list[ast.AST | None] = []
    for node in ast.walk(tree):
        match node:
            case ast.arg() | ast.AnnAssign():
                places.append(node.annotation)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                places.append(node.returns)
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, types]):
                places.append(types)
            case ast.MatchClass():
                places.append(node.cls)
    return {inner for place in places if place is not None for inner in ast.walk(place)}


def writes_made(tree: ast.Module) -> list[int]:
    """The lines that construct a write, or pass one of its classes to something that does."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in WRITES
    }
    typed = types_only(tree)
    return sorted(
        node.lineno
        for node in ast.walk(tree)
        if node not in typed
        and (
            (isinstance(node, ast.Name) and node.id in names)
            or (isinstance(node, ast.Attribute) and node.attr in WRITES)
        )
    )


def caches_read(tree: ast.Module, inside: frozenset[str] = frozenset()) -> list[int]:
    """The lines that touch caches outside functions of these names."""
    allowed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in inside
        for inner in ast.walk(node)
    }
    if inside:
        allowed |= {node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return sorted(set(_cache_lines(tree, allowed)))


def _cache_lines(tree: ast.Module, allowed: set[ast.AST]) -> Iterator[int]:
    for node in ast.walk(tree):
        if node in allowed:
            continue
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.arg(arg=name) if name in CACHES:
                yield node.lineno
            case ast.ImportFrom(module=module) if module == CACHES_MODULE:
                if not {alias.name for alias in node.names} <= PURE_IN_CACHES:
                    yield node.lineno
            case ast.Import() if any(alias.name == CACHES_MODULE for alias in node.names):
                yield node.lineno


def statuses_opened(tree: ast.Module) -> list[int]:
    """The lines that read an object's status from its manifest."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Subscript) and _is_status(node.slice) and isinstance(node.ctx, ast.Load))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and bool(node.args)
            and _is_status(node.args[0])
        )
        or (isinstance(node, ast.Name) and node.id in ("conditions_of", "is_true"))
    ]


def _is_status(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == "status"


def clocks_read(tree: ast.Module) -> list[int]:
    """The lines that read a clock."""
    called = (
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCK_CALLS
    )
    return [*_imports(tree, CLOCK_MODULES), *called]


def dice_thrown(tree: ast.Module) -> list[int]:
    """The lines that import randomness."""
    return _imports(tree, RANDOM_MODULES)


def _imports(tree: ast.Module, modules: frozenset[str]) -> list[int]:
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Import() if modules & {alias.name for alias in node.names}:
                lines.append(node.lineno)
            case ast.ImportFrom() if node.module in modules:
                lines.append(node.lineno)
    return lines


def caches_read_in(module: Module) -> list[int]:
    if module.part in MAY_READ_CACHES:
        return []
    return caches_read(module.tree, MAY_READ_CACHES_IN.get(module.part, frozenset()))


by_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.holds(
    "architecture.md",
    "In the packages of fleets and indexes only `act.py` writes, only `observe.py` and "
    "`references.py` read caches, and no module reads a clock",
)
@by_kind
@pytest.mark.parametrize(
    ("found", "may"),
    [
        pytest.param(writes_made, MAY_WRITE, id="makes writes"),
        pytest.param(statuses_opened, MAY_OPEN_STATUS, id="opens a status"),
        pytest.param(clocks_read, frozenset(), id="reads a clock"),
        pytest.param(dice_thrown, MAY_BE_RANDOM, id="is random"),
    ],
)
def test_only_the_modules_that_may_do_it(
    kind: str, found: Callable[[ast.Module], list[int]], may: frozenset[str]
) -> None:
    others = (module for module in modules(kind) if module.part not in may)
    assert {module.name: lines for module in others if (lines := found(module.tree))} == {}


@pytest.mark.holds(
    "architecture.md",
    "In the packages of fleets and indexes only `act.py` writes, only `observe.py` and "
    "`references.py` read caches, and no module reads a clock",
)
@by_kind
def test_only_observing_and_waking_read_caches(kind: str) -> None:
    assert {module.name: lines for module in modules(kind) if (lines := caches_read_in(module))} == {}


@by_kind
@pytest.mark.parametrize(
    ("found", "part"),
    [
        pytest.param(writes_made, "act", id="makes writes"),
        pytest.param(caches_read, "observe", id="reads caches"),
        pytest.param(caches_read, "controller", id="reads caches to wake"),
    ],
)
def test_each_rule_sees_what_is_allowed_elsewhere(
    kind: str, found: Callable[[ast.Module], list[int]], part: str
) -> None:
    assert any(found(module.tree) for module in modules(kind) if module.part == part)


WRITES_IMPORTED = "from flotilla_operator.cluster.writes import Apply, Delete as Remove\n"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        pytest.param("Apply(manifest={})", [2], id="constructed"),
        pytest.param("Remove(ref=ref, uid=uid)", [2], id="under another name"),
        pytest.param("writes = map(Apply, manifests)", [2], id="passed to what constructs it"),
        pytest.param("import x.writes\nx.writes.Create(manifest={})", [3], id="by its module"),
        pytest.param("def f(write: Apply) -> list[Remove]: ...", [], id="in a signature"),
        pytest.param("if isinstance(write, Apply | Remove): ...", [], id="asked for"),
        pytest.param("match write:\n    case Apply(): ...", [], id="matched"),
    ],
)
def test_a_write_is_seen_however_it_is_made(source: str, lines: list[int]) -> None:
    assert writes_made(ast.parse(WRITES_IMPORTED + source)) == lines


WAKING = MAY_READ_CACHES_IN["controller"]
NOWHERE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("source", "inside", "lines"),
    [
        pytest.param("found = world.caches.get(PODS, 'a', 'b')", NOWHERE, [1], id="through the world"),
        pytest.param("def f(caches): ...", NOWHERE, [1], id="as an argument"),
        pytest.param(f"from {CACHES_MODULE} import Store", NOWHERE, [1], id="imported"),
        pytest.param(f"import {CACHES_MODULE}", NOWHERE, [1], id="by its module"),
        pytest.param(f"from {CACHES_MODULE} import controller_uid", NOWHERE, [], id="a pure function"),
        pytest.param("def wakes(self, caches):\n    caches.listed(PODS)", WAKING, [], id="where it wakes"),
        pytest.param("def act(self):\n    self.world.caches", WAKING, [2], id="elsewhere in a controller"),
    ],
)
def test_a_look_into_caches_is_seen(source: str, inside: frozenset[str], lines: list[int]) -> None:
    assert caches_read(ast.parse(source), inside) == lines


@pytest.mark.holds(
    "architecture.md",
    "In the packages of fleets and indexes only `act.py` writes, only `observe.py` and "
    "`references.py` read caches, and no module reads a clock",
)
@pytest.mark.parametrize(
    ("found", "source"),
    [
        pytest.param(statuses_opened, "x = (manifest.get('status') or {})", id="a status by get"),
        pytest.param(statuses_opened, "x = manifest['status']['url']", id="a status by its key"),
        pytest.param(statuses_opened, "x = conditions_of(manifest)", id="its conditions"),
        pytest.param(clocks_read, "x = datetime.now(UTC)", id="a clock"),
        pytest.param(clocks_read, "import time", id="a module of clocks"),
        pytest.param(dice_thrown, "from secrets import token_urlsafe", id="dice"),
    ],
)
def test_each_rule_can_fail(found: Callable[[ast.Module], list[int]], source: str) -> None:
    assert found(ast.parse(source)) == [1]

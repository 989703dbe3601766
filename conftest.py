"""Shared by every test below.

pytest names a test module after its path, so a test in the folder `operator/` becomes `operator.tests.…`, and
pytest would put a package in the place of the standard library's `operator`. Giving that module a path keeps
both. And an example of a property may take as long as a busy machine makes it take, to be drawn and to run.
"""

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

operator.__path__ = [str(Path(__file__).parent / "operator")]  # type: ignore[attr-defined]

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

pytest_plugins = [
    "local_cluster.pytest_plugin",
    "tests.support.real_engines",
    "tiers.pytest_plugin",
    "leaks.pytest_plugin",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-golden` writes what the code gives now into the golden files, to be reviewed as a diff."""
    parser.addoption("--rewrite-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with a golden file, or rewrites the file."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is not there; run pytest with --rewrite-golden and review it"
        assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; see pytest --rewrite-golden"

    return compare

"""The faults of `make test-faults` fit the code, and the seeding tells caught faults from missed ones."""

from pathlib import Path

import pytest

from local_cluster.directories import CHECKOUT
from seeded_faults.__main__ import seed_all
from seeded_faults.faults import FAULTS
from seeded_faults.seeding import Fault

SOUND_TEST = "from adding import add\n\n\ndef test_add() -> None:\n    assert add(1, 2) == 3\n"


def test_there_are_twenty_or_more() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_text_of_a_fault_occurs_once_and_its_tests_exist(fault: Fault) -> None:
    assert fault.occurrences(CHECKOUT) == 1
    assert fault.broken != fault.sound
    assert fault.tests
    for test in fault.tests:
        path, _, name = test.partition("::")
        assert (CHECKOUT / path).exists(), test
        assert f"def {name}(" in (CHECKOUT / path).read_text() if name else True, test


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of two files and a test."""
    (tmp_path / "e2e").mkdir()
    (tmp_path / "e2e" / "adding.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n")
    (tmp_path / "test_adding.py").write_text(SOUND_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def fault(broken: str) -> Fault:
    return Fault(
        name=f"return {broken}",
        path="e2e/adding.py",
        sound="return a + b",
        broken=f"return {broken}",
        tests=("test_adding.py",),
    )


def test_a_fault_is_caught_or_missed_and_the_code_is_sound_again(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = (checkout / "e2e" / "adding.py").read_text()
    assert seed_all(checkout, [fault("a - b"), fault("b + a")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "caught  return a - b",
        "MISSED  return b + a",
        "1 of 2 faults caught",
    ]
    assert (checkout / "e2e" / "adding.py").read_text() == sound


def test_tests_that_fail_without_a_fault_prove_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "test_adding.py").write_text(SOUND_TEST.replace("== 3", "== 4"))
    assert seed_all(checkout, [fault("a - b")]) == 1
    assert "fail without any fault" in capsys.readouterr().err


def test_code_that_cannot_be_imported_is_not_a_caught_fault(checkout: Path) -> None:
    assert seed_all(checkout, [fault(")")]) == 1

"""docs/engine.md has a row for each setting, with the verdict that the tests on a real engine hold."""

from pathlib import Path

from tests.workloads.engine_settings import SETTINGS

ROOT = Path(__file__).parents[3]
REAL_TESTS = Path(__file__).with_name("test_engine_settings_real.py")


def verdicts() -> dict[str, str]:
    """The last cell of each row, by the setting in its first."""
    lines = (ROOT / "docs" / "engine.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")
    ]
    return {cells[0].strip("| `"): cells[-1].rstrip("| ") for cells in rows}


def test_every_setting_has_a_row_and_every_row_is_a_setting() -> None:
    assert sorted(verdicts()) == sorted(setting.name for setting in SETTINGS)


def test_every_row_says_what_the_tests_hold() -> None:
    told = verdicts()
    tests = REAL_TESTS.read_text()
    for setting in SETTINGS:
        if setting.refusal is not None:
            assert told[setting.name] == f"refused: `{setting.refusal}`"
        else:
            verdict, _, test = told[setting.name].partition(": ")
            assert verdict == "runs"
            assert f"def {test}(" in tests
            assert f'"{setting.name}"' in tests, f"{setting.name} is in no test with the real engine"

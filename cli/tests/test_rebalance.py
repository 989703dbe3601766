"""The rebalance command against a scripted kubectl; the operator's side is in its own tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flotilla_cli.main import main
from flotilla_cli.rebalance import Progress, RebalanceError, asked, table

MOVE = {
    "group": "llama-a",
    "fromNodes": ["a"],
    "toNodes": ["b"],
    "step": 1,
    "gain": 0.5,
    "acceleratorsRestarted": 4,
    "sessionsLost": 12,
    "phase": "Proposed",
}


class Cluster:
    """Gives the statuses one after the other, the last one for ever, and notes what was called."""

    def __init__(self, *phases: str, about: str = "apply:1") -> None:
        self.calls: list[Sequence[str]] = []
        self.now = 0.0
        self._phases, self._about = list(phases), about

    def kubectl(self, arguments: Sequence[str]) -> str:
        self.calls.append(arguments)
        if arguments[0] == "annotate":
            return ""
        phase = self._phases.pop(0) if len(self._phases) > 1 else self._phases[0]
        told = {"asked": self._about, "phase": phase, "message": f"it is {phase}"}
        return json.dumps({"status": {"placement": {"rebalance": told, "moves": [MOVE]}}})

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, **options: Any) -> list[Progress]:
        return list(
            asked(self.kubectl, "llama", "apply:1", clock=lambda: self.now, sleep=self.sleep, **options)
        )


@pytest.mark.holds("placement.md", "The annotation or the command asks for it")
def test_the_set_is_annotated_once_and_followed_to_the_end() -> None:
    cluster = Cluster("Waiting", "Waiting", "Moving", "Moving", "Done")
    told = cluster.ask(namespace="models")
    assert [(one.phase, one.good) for one in told] == [("Waiting", False), ("Moving", False), ("Done", True)]
    assert [call for call in cluster.calls if call[0] == "annotate"] == [
        [
            "annotate",
            "modelreplicasets.flotilla.dev",
            "llama",
            "--namespace",
            "models",
            "--overwrite",
            "flotilla.dev/rebalance=apply:1",
        ]
    ]


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        pytest.param(
            Cluster("Waiting"),
            "has not ended after 5 s; Waiting: it is Waiting",
            id="a set that never settles",
        ),
        pytest.param(
            Cluster("Done", about="apply:0"),
            "the operator has not answered yet",
            id="the answer to an earlier question is none",
        ),
    ],
)
def test_what_is_not_answered_in_time_says_why(cluster: Cluster, message: str) -> None:
    with pytest.raises(RebalanceError, match=message):
        cluster.ask(timeout_seconds=5)


def test_the_table_says_what_a_move_costs() -> None:
    heading, first, second = table([MOVE, {**MOVE, "step": 2, "sessionsLost": None}]).splitlines()
    assert "   GAIN    ACCELERATORS RESTARTED   SESSIONS LOST" in heading
    assert first.split() == ["1", "llama-a", "a", "b", "+0.50", "4", "12", "Proposed"]
    assert second.split()[6] == "unknown"
    assert table([]) == ""


KUBECTL = """#!/bin/sh
here=$(dirname "$0")
case "$1 $2" in
"annotate "*) for last; do :; done; echo "${last#*=}" > "$here/value" ;;
"get "*) sed "s/VALUE/$(cat "$here/value")/" "$here/answer" ;;
esac
"""


@pytest.mark.holds(
    "placement.md",
    "The command ends with status 1 unless all was shown or done, and says when kubectl is missing",
)
@pytest.mark.parametrize(
    ("options", "phase", "status"),
    [
        pytest.param([], "Shown", 0, id="shown"),
        pytest.param(["--apply"], "Done", 0, id="carried out"),
        pytest.param(["--apply"], "Stopped", 1, id="stopped on the way"),
    ],
)
def test_the_command(
    options: list[str],
    phase: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {"asked": "VALUE", "phase": phase, "message": "so it is"}
    answer = {"status": {"placement": {"rebalance": told, "moves": [MOVE]}}}
    (tmp_path / "answer").write_text(json.dumps(answer))
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(["rebalance", "llama", *options]) == status
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("STEP")
    assert out.splitlines()[-1] == f"{phase}: so it is"
    assert (tmp_path / "value").read_text().startswith("apply:" if options else "show:")


@pytest.mark.holds(
    "placement.md",
    "The command ends with status 1 unless all was shown or done, and says when kubectl is missing",
)
def test_without_kubectl_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["rebalance", "llama"]) == 1
    assert capsys.readouterr().err == "flotilla: kubectl was not found on the PATH; install it\n"

"""The search for planted secrets: what it finds, where it looks, and that a finding fails a run."""

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from leaks.finding import encodings_in
from leaks.planted import MARK, in_secret, planted
from leaks.pytest_plugin import CHUNK_BYTES, cluster_folders, logs_below
from local_cluster.components import AUDIT_POLICY
from local_cluster.directories import CHECKOUT

SECRET = planted("key")
EVERY_LETTER = {
    "a URL's escapes": "%{:02X}",
    "JSON's escapes": "\\u{:04x}",
    "JSON's escapes in a text of JSON": "\\\\u{:04x}",
    "Python's escapes": "\\x{:02x}",
    "HTML's escapes": "&#{};",
}


def escaped(form: str, text: str, every: int = 1) -> str:
    return "".join(form.format(ord(one)) if n % every == 0 else one for n, one in enumerate(text))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        pytest.param(SECRET, "plain", id="plain"),
        pytest.param(repr(SECRET.encode()), "plain", id="Python's bytes"),
        pytest.param(quote(f"redis://:{SECRET} x@host", safe=""), "plain", id="in an escaped URL"),
        pytest.param(in_secret("key"), "base64", id="as in a Secret"),
        *(
            pytest.param(
                base64.b64encode(b"x" * n + MARK.encode()).decode(), "base64", id=f"base64 after {n}"
            )
            for n in range(3)
        ),
        *(
            pytest.param(
                base64.encodebytes(b"x" * n + SECRET.encode()).decode(), "base64", id=f"a line end, {n}"
            )
            for n in range(30, 60, 5)
        ),
        pytest.param(SECRET.encode().hex(), "hexadecimal", id="digits"),
        pytest.param(SECRET.encode().hex(":").upper(), "hexadecimal", id="digits with colons"),
        *(pytest.param(escaped(form, SECRET), "escaped", id=name) for name, form in EVERY_LETTER.items()),
        *(
            pytest.param(escaped(form, SECRET, 3), "escaped", id=f"some of {name}")
            for name, form in EVERY_LETTER.items()
        ),
    ],
)
def test_a_planted_secret_is_found_in_each_encoding(text: str, encoding: str) -> None:
    assert encodings_in(f"Illegal header value {text} of it".encode()) == {encoding}


def test_nothing_is_found_in_what_only_looks_like_it() -> None:
    assert encodings_in(f"{MARK[:-1]} {MARK.lower()} %5A%71 \\u005a WnE3".encode()) == set()


HEADER = """\
import secrets
from leaks.planted import in_secret, planted
from leaks.pytest_plugin import told
"""
LEAKS = (  # the line of a test, and how its place is named
    ("told('Pod x', {'message': planted('k')})", "Pod x: plain"),
    ("print(planted('k'))", "::test_1, captured stdout call: plain"),
    ("(tmp_path / 'a.log').write_text(planted('k').encode().hex())", "a.log: hexadecimal"),
    ("(tmp_path / 'audit.log').write_text(in_secret('k'))", "audit.log: base64"),
    ("print(secrets.token_urlsafe(8))", "::test_4, captured stdout call: plain"),
    (f"(tmp_path / 'long.log').write_text('x' * {CHUNK_BYTES - 9} + planted('k'))", "long.log: plain"),
)
NO_LEAKS = (
    "(tmp_path / 'kubeconfig').write_text(planted('k'))",
    "told('Pod x', {'message': 'k'})",
    "told('Pod x', None)",
)


def ended(lines: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest with our plugin, of a test of each line, outside the folders that this run searches."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(CHECKOUT / name) for name in ("e2e", "operator")),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    plugins = ("-p", "leaks.pytest_plugin", "-p", "xdist")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        tests = "".join(f"def test_{n}(tmp_path):\n    {line}\n" for n, line in enumerate(lines))
        (folder / "test_it.py").write_text(HEADER + tests)
        command = [sys.executable, "-m", "pytest", *plugins, *options, f"--basetemp={folder / 'base'}", "-q"]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "with xdist"])
def test_leaks_fail_a_run_that_passed_otherwise_and_are_named(options: tuple[str, ...]) -> None:
    run = ended([line for line, _ in LEAKS], *options)
    assert (run.returncode, f"{len(LEAKS)} passed" in run.stdout) == (1, True), run.stderr
    named = run.stdout.partition("planted secrets were found")[2].splitlines()
    assert [place for _, place in LEAKS if not any(line.endswith(place) for line in named)] == []


def test_a_secret_in_its_place_fails_nothing() -> None:
    run = ended(NO_LEAKS)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_logs_of_pods_and_of_the_clusters_parts_are_among_what_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOTILLA_CACHE", str(tmp_path))
    logs = {"node/kubelet/pod-logs/a_b_c/engine/0.log", "control-plane/audit.log"}
    for name in {*logs, "volumes/x.log", "node/kubeconfig"}:
        path = tmp_path / "cluster" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {path for folder in cluster_folders() for path in logs_below(folder)}
    assert found == {tmp_path / "cluster" / name for name in logs}


def test_audit_logs_hold_statuses_and_events() -> None:
    assert 'resources: [events, "*/status"]' in AUDIT_POLICY

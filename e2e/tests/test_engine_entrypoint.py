"""The engine image's entry point: what it adds for a CPU, and what it leaves to the caller.

The started engine is in test_engine_contract.py.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import entrypoint
from engine.cache import built_aside, content_key, point
from engine.environment import LOCK, EngineError, ensure

ENTRYPOINT = Path(entrypoint.__file__)
OVERRIDES = "overrides.txt"


def test_the_model_stays_first_where_vllm_serve_wants_it() -> None:
    arguments = entrypoint.arguments(["/models/m", "--port", "8000"], set())
    assert (arguments[0], arguments[-2:]) == ("/models/m", ["--port", "8000"])


def test_arguments_without_a_model_are_left_to_vllm() -> None:
    assert entrypoint.arguments(["--config", "c.yaml"], set())[-2:] == ["--config", "c.yaml"]


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        pytest.param({"avx512_bf16", "avx2"}, "bfloat16", id="a processor with fast half precision"),
        pytest.param({"avx2"}, "float32", id="an older processor"),
    ],
)
def test_numbers_have_the_form_that_the_processor_is_fast_at(flags: set[str], dtype: str) -> None:
    arguments = entrypoint.arguments(["m"], flags)
    assert arguments[arguments.index("--dtype") + 1] == dtype


def test_the_callers_own_value_comes_last_and_wins() -> None:
    arguments = entrypoint.arguments(["m", "--dtype", "float16"], set())
    assert arguments.index("float16") > arguments.index("float32")


@pytest.mark.parametrize(
    ("given", "alone"),
    [
        pytest.param(["--tensor-parallel-size", "1", "--pipeline-parallel-size=1"], True, id="one process"),
        pytest.param(["--tensor-parallel-size", "2"], False, id="two tensor ranks"),
        pytest.param(["--pipeline-parallel-size=2"], False, id="two stages, with an equals sign"),
        pytest.param(["-tp", "2"], False, id="the short name"),
    ],
)
def test_only_a_model_that_is_not_split_runs_in_one_process(given: list[str], alone: bool) -> None:
    arguments = entrypoint.arguments(["m", *given], set())
    assert (entrypoint.IN_PROCESS in arguments) is alone


@pytest.mark.parametrize(
    ("given", "traced"),
    [
        pytest.param(["--tensor-parallel-size", "2"], False, id="tensor ranks receive nothing from a stage"),
        pytest.param(["--pipeline-parallel-size", "2"], True, id="a stage makes room for what it receives"),
    ],
)
def test_stages_are_traced_and_everything_else_runs_eagerly(given: list[str], traced: bool) -> None:
    arguments = entrypoint.arguments(["m", *given], set())
    assert ("--compilation-config" in arguments, "--enforce-eager" in arguments) == (traced, not traced)


def test_what_the_pod_sets_is_kept_and_the_rest_is_filled_in() -> None:
    given = {"VLLM_CPU_KVCACHE_SPACE": "4", "HOME": "/gone", "OMP_NUM_THREADS": "3"}
    made = entrypoint.environment(given, "/packages", "/writable", "/scratch", threads=2)
    assert made["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert made["OMP_NUM_THREADS"] == "3"
    assert made["HOME"] == "/writable"
    assert made["PYTHONPATH"] == "/packages"
    assert made["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        pytest.param("200000 100000", 2, id="two whole cores"),
        pytest.param("150000 100000", 2, id="one and a half is rounded up"),
        pytest.param("max 100000", 8, id="no limit"),
        pytest.param("-1\n 100000\n", 8, id="no limit, as older kernels say it"),
        pytest.param("", 8, id="nothing to read"),
        pytest.param("1600000 100000", 8, id="more than there are"),
        pytest.param("1000 100000", 1, id="a sliver is still one"),
    ],
)
def test_threads_follow_the_containers_limit(quota: str, cores: int) -> None:
    assert entrypoint.cpu_limit(quota, available=8) == cores


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT"])
def test_vllm_finds_what_is_known_of_our_models_where_it_looks(variable: str, tmp_path: Path) -> None:
    (tmp_path / "engine" / "model-infos").mkdir(parents=True)
    (tmp_path / "engine" / "model-infos" / "llama.json").write_text("{}")
    packages = str(tmp_path / "engine" / "site-packages")
    entrypoint.give_model_infos(packages, {"HOME": "/gone", variable: str(tmp_path / "there")})
    (found,) = (tmp_path / "there").rglob("llama.json")
    below = {"HOME": ".cache/vllm/modelinfos", "XDG_CACHE_HOME": "vllm/modelinfos"}
    assert found.parent == tmp_path / "there" / below.get(variable, "modelinfos")


def test_what_vllm_has_found_out_itself_is_left_and_nothing_to_give_is_no_error(tmp_path: Path) -> None:
    entrypoint.give_model_infos(str(tmp_path / "site-packages"), {"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model-infos").mkdir()
    (tmp_path / "model-infos" / "llama.json").write_text("{}")
    (tmp_path / ".cache" / "vllm" / "modelinfos").mkdir(parents=True)
    entrypoint.give_model_infos(str(tmp_path / "site-packages"), {"HOME": str(tmp_path)})
    assert list((tmp_path / ".cache" / "vllm" / "modelinfos").iterdir()) == []


def test_without_its_packages_it_says_where_they_belong(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ENTRYPOINT), "m"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "ENGINE_PACKAGES": str(tmp_path / "none")},
    )
    assert done.returncode == 1
    assert "python -m engine environment" in done.stderr


def test_a_folder_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), built_aside(tmp_path / "made") as scratch:
        (scratch / "half" / "way").mkdir()
    assert list(tmp_path.iterdir()) == []
    with built_aside(tmp_path / "made") as scratch:
        (scratch / "whole").touch()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["whole"]


def test_current_is_a_relative_link_so_that_it_holds_where_it_is_mounted(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point(tmp_path / "current", tmp_path / name)
        assert (tmp_path / "current").readlink() == Path(name)


def test_the_key_changes_with_the_lock_file(tmp_path: Path) -> None:
    lock = tmp_path / "engine.txt"
    lock.write_bytes(LOCK.read_bytes())
    assert content_key([lock], "1") == content_key([LOCK], "1")
    lock.write_text("other==1")
    assert content_key([lock], "1") != content_key([LOCK], "1")


@pytest.mark.parametrize("name", sorted({path.name for path in LOCK.parent.glob("*.txt")} - {OVERRIDES}))
def test_a_lock_file_pins_every_package_with_hashes_and_names_no_host(name: str) -> None:
    text = (LOCK.parent / name).read_text()
    assert "://" not in text
    packages = re.findall(r"^\w.*(?:\n .*)*", text, re.MULTILINE)
    assert packages
    assert [part for part in packages if "==" not in part or "--hash=sha256:" not in part] == []


def test_too_little_room_is_said_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.environment.DISK_NEEDED_BYTES", 1 << 60)
    with pytest.raises(EngineError, match="set FLOTILLA_CACHE to a folder on a larger disk"):
        ensure(tmp_path)

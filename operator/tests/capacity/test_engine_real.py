"""The arithmetic against real vLLM: what it prints at its start, and the default it takes."""

import re
import subprocess
from pathlib import Path

import pytest

from engine.environment import ensure
from engine.models import GENERATOR, ensure_models
from engine.serve import process_environment, running
from flotilla_operator.capacity import kv_bytes_per_token, shape_of
from flotilla_operator.capacity.fit import GIB, UTILIZATION
from flotilla_runtime.models.facts import of_folder
from local_cluster.processes import free_port

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

PRINTED = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens .*: ([\d.]+)x")
PAGE_TOKENS = 128  # on CPUs; memory is given out in whole pages


def test_the_engine_finds_room_for_as_many_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    model = ensure_models() / GENERATOR.name
    facts = of_folder(model)
    assert facts is not None
    shape = shape_of(facts.config, facts.file_bytes, facts.stored_bytes)
    fitting = GIB / kv_bytes_per_token(shape, number_bytes=4)
    arguments = [str(model), "--max-model-len", "4096", "--max-num-seqs", "2", "--dtype", "float32"]
    log = tmp_path / "engine.log"
    with running(ensure(), arguments, free_port(), log):
        found = PRINTED.search(log.read_text())
    assert found, log.read_text()[-3000:]
    tokens = int(found[1].replace(",", ""))
    assert tokens == pytest.approx(fitting, abs=PAGE_TOKENS)
    assert float(found[3]) == pytest.approx(fitting / 4096, rel=0.01)


def test_the_share_of_memory_is_the_engines_default() -> None:
    engine = ensure()
    code = "from vllm.config import CacheConfig; print('default', CacheConfig().gpu_memory_utilization)"
    environment = {**process_environment(engine), "PYTHONPATH": str(engine.packages)}
    done = subprocess.run(
        [str(engine.python), "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert f"default {UTILIZATION}" in done.stdout

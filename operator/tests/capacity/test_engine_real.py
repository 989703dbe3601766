"""The arithmetic against real vLLM: the room that it prints at its start.

The share of memory that it takes by default is in workloads/test_engine_arguments_real.py.
"""

import re

import pytest

from engine.models import GENERATOR, ensure_models
from flotilla_operator.capacity import kv_bytes_per_token, shape_of
from flotilla_operator.capacity.fit import GIB
from flotilla_runtime.models.facts import of_folder
from tests.support.real_engines import EXAMPLE_ENGINES, PodsEngine

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), EXAMPLE_ENGINES]

PRINTED = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens .*: ([\d.]+)x")
NUMBERS = re.compile(r"Initializing a V1 LLM engine .*\bdtype=torch\.(\w+)")
NUMBER_BYTES = {"float32": 4, "bfloat16": 2}  # which of them depends on the processor
PAGE_TOKENS = 128  # on CPUs; memory is given out in whole pages


@pytest.mark.holds("capacity.md", "The arithmetic agrees with what real vLLM finds room for")
def test_the_engine_finds_room_for_as_many_tokens(generator: PodsEngine) -> None:
    """In the GiB that the example gives to its KV cache."""
    facts = of_folder(ensure_models() / GENERATOR.name)
    assert facts is not None
    log = generator.engine.log.read_text()
    found, numbers = PRINTED.search(log), NUMBERS.search(log)
    assert found, log[-3000:]
    assert numbers, log[-3000:]
    shape = shape_of(facts.config, facts.file_bytes, facts.stored_bytes)
    fitting = GIB / kv_bytes_per_token(shape, number_bytes=NUMBER_BYTES[numbers[1]])
    assert int(found[1].replace(",", "")) == pytest.approx(fitting, abs=PAGE_TOKENS)
    assert found[2] == "4,096"
    assert float(found[3]) == pytest.approx(fitting / 4096, rel=0.01)

"""Reasons of an engine's refusals. e2e/tests/test_engine_contract.py compares them with a real vLLM."""

import json
from typing import Any

import pytest

from flotilla_runtime.engine_errors import says_too_long
from flotilla_runtime.router.openai_errors import RefusalReason, refusals

# The texts of vLLM 0.32.
TOO_MANY_TOKENS = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
    "prompt."
)
TOO_MANY_CHARACTERS = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains 90000 characters "
    "(more than 65536 characters, which is the upper bound for 4096 input tokens). Please reduce the length "
    "of the input prompt."
)


def refusal(message: str, **fields: Any) -> str:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return json.dumps({"error": {**error, **fields}})


@pytest.mark.parametrize(
    ("body", "too_long"),
    [
        pytest.param(refusal(TOO_MANY_TOKENS, param="input_tokens"), True, id="vLLM 0.32 of tokens"),
        pytest.param(refusal(TOO_MANY_CHARACTERS, param="input_text"), True, id="vLLM 0.32 of characters"),
        pytest.param(refusal("The prompt is big.", param="input_tokens"), True, id="vLLM in other words"),
        pytest.param(refusal(TOO_MANY_TOKENS), True, id="vLLM without a parameter"),
        pytest.param(
            json.dumps({"object": "error", "message": TOO_MANY_TOKENS, "code": 400}), True, id="an older vLLM"
        ),
        pytest.param(
            refusal("Please shorten it.", code="context_length_exceeded"), True, id="OpenAI's own code"
        ),
        pytest.param(
            '{"error": "`inputs` must have less than 512 tokens. Given: 700"}', True, id="an embedding server"
        ),
        pytest.param("The input is too long.", True, id="a text that is not JSON"),
        pytest.param(
            refusal("temperature must be at least 0", param="temperature"), False, id="another field"
        ),
        pytest.param(refusal("no: " + "x" * 500 + " too long"), False, id="the words of the text itself"),
        pytest.param('["refused"]', False, id="a list"),
        pytest.param(
            '{"error": {"message": "no", "param": ["messages", 0]}}', False, id="a parameter that is a list"
        ),
        pytest.param('{"error": null}', False, id="an error without words"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_a_refusal_for_the_length_is_told_apart(body: str, too_long: bool) -> None:
    assert says_too_long(body) is too_long


def test_of_the_routers_own_refusals_only_a_slow_body_asks_for_less() -> None:
    errors = refusals(max_request_mib=64, queue_timeout_seconds=30)
    assert [reason for reason, error in errors.items() if says_too_long(error.body)] == [
        RefusalReason.TOO_SLOW
    ]

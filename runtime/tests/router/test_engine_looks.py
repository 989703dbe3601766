"""An engine's metrics → requests in it; that draining engines are asked is in test_router_recovery."""

import pytest

from flotilla_runtime.router.engine_looks import in_flight

RUNNING = 'vllm:num_requests_running{engine="0",model_name="m"} '
WAITING = 'vllm:num_requests_waiting{engine="0",model_name="m"} '


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        pytest.param(f"# HELP x\n{RUNNING}2.0\n{WAITING}3.0\n", 5, id="both are added"),
        pytest.param(f"{RUNNING}0\n{WAITING}0.0", 0, id="idle"),
        pytest.param(f"{RUNNING}1\n{RUNNING}1\n{WAITING}0", 2, id="several engine cores"),
        pytest.param(f"{RUNNING}0\n", None, id="one is missing, so nothing is known"),
        pytest.param("", None, id="no metrics"),
        pytest.param(f"{RUNNING}zero\n{WAITING}0", None, id="not a number"),
        pytest.param("vllm:num_requests_running\nvllm:num_requests_waiting 0", None, id="no value"),
        pytest.param(f"vllm:num_requests_waiting_total 9\n{RUNNING}0\n{WAITING}0", 0, id="another metric"),
    ],
)
def test_in_flight(text: str, requests: float | None) -> None:
    assert in_flight(text) == requests

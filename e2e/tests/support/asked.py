"""Asks a set through its router, as its callers do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2

from demo.kubectl import Kubectl
from flotilla_runtime import contract


@contextmanager
def asked(kubectl: Kubectl, name: str) -> Iterator[Callable[[str], str]]:
    """Asks the set whose model has its name; each answer is the name of the replica that gave it."""
    with (
        kubectl.port_forward(f"service/{name}-model", contract.PORT_ROUTER) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):

        def ask(question: str) -> str:
            message = {"role": "user", "content": question}
            body = {"model": name, "messages": [message], "max_tokens": 4}
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return answer.headers[contract.HEADER_REPLICA]

        yield ask

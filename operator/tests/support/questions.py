"""A question that the small generator of the tests knows the answer of: who answers it has computed."""

import httpx2

ANSWER = "Paris"


def ask(url: str, model: str, *, timeout_seconds: float) -> str:
    """Answer of the model to it, at a server of OpenAI's API."""
    question = {"role": "user", "content": "What is the capital of France?"}
    body = {"model": model, "messages": [question], "max_tokens": 12, "temperature": 0}
    response = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=timeout_seconds)
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content

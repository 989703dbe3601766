"""Asks the engine beside it for one token, or one embedding: `first_answer.py PATH FIELD`. Fails until
one comes.
"""

import json
import os
import sys
import urllib.error
import urllib.request

ENGINE = "http://127.0.0.1:8000"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the engine's env names
TIMEOUT_SECONDS = 55


def said_of(problem: Exception) -> str:
    """Says what kind of failure it is. The error's own text may have a part of the request or the answer."""
    if isinstance(problem, urllib.error.HTTPError):
        return f"the engine answers {problem.code}"
    reason = getattr(problem, "reason", problem)
    if isinstance(reason, OSError) and reason.errno:
        return os.strerror(reason.errno)
    return type(reason).__name__


def main() -> None:
    """Ends with a sentence on standard error when there is no answer yet."""
    path, field = sys.argv[1:]
    body: dict[str, object] = {"model": os.environ["FLOTILLA_SERVED_MODEL"], field: "ready?"}
    if field == "prompt":
        body["max_tokens"] = 1
    headers = {"Content-Type": "application/json"}
    if (raw := os.environ.get("VLLM_API_KEY")) is not None:
        key = raw.strip(" \t\r\n")
        if not (key and key.isascii() and key.isprintable()):  # else an error of the client would quote it
            sys.exit("VLLM_API_KEY is empty or cannot be a header; give it one line of printable ASCII")
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(  # noqa: S310 (the address is a constant)
        ENGINE + path, json.dumps(body).encode(), headers
    )
    try:
        with DIRECT.open(request, timeout=TIMEOUT_SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as problem:
        sys.exit(f"no answer yet: {said_of(problem)}")
    if not (found.get("choices") or found.get("data")):
        sys.exit("an answer without a result")


if __name__ == "__main__":
    main()

"""Asks the engine beside it for one token, or one embedding: `first_answer.py PATH FIELD`. Fails until
one comes.
"""

import json
import os
import sys
import urllib.request

ENGINE = "http://127.0.0.1:8000"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the engine's env names
TIMEOUT_SECONDS = 55


def main() -> None:
    """Ends with a sentence on standard error when there is no answer yet."""
    path, field = sys.argv[1:]
    body: dict[str, object] = {"model": os.environ["FLOTILLA_SERVED_MODEL"], field: "ready?"}
    if field == "prompt":
        body["max_tokens"] = 1
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(  # noqa: S310 (the address is a constant)
        ENGINE + path, json.dumps(body).encode(), headers
    )
    try:
        with DIRECT.open(request, timeout=TIMEOUT_SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as problem:
        sys.exit(f"no answer yet: {problem}")
    if not (found.get("choices") or found.get("data")):
        sys.exit(f"an answer without a result: {found}")


if __name__ == "__main__":
    main()

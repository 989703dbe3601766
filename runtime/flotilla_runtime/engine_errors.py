"""Finds out whether an engine refused a prompt or a text because it is too long; no other module does. Pure.

vLLM answers such a request with 400. Its error, in OpenAI's form, names the parameter that is wrong:
`input_tokens`, or `input_text` for a text that is too long before it is tokenized. This is so in vLLM 0.32,
and e2e/tests/test_engine_contract.py compares the parameter with a real vLLM. OpenAI has the code
`context_length_exceeded`. Where neither is there, only words tell: those of older versions of vLLM, of vLLM
for a prompt and an answer that are too long together, of other engines with OpenAI's API, and of a router
that cut off a body which came too slowly.

When all of these change, a text that is too long counts as refused for another reason. Then a task ends with
ModelFailed and a search with 422, both with the engine's words, instead of trying less.
"""

import json
import re
from typing import Any, Final

TOO_LONG_PARAMETERS: Final = frozenset({"input_tokens", "input_text"})
TOO_LONG_CODE: Final = "context_length_exceeded"
TOO_LONG_WORDS: Final = re.compile(
    r"context[ _]length|maximum context|max_model_len|reduce the length|too long|"
    r"must have less than \d+ tokens",
    re.IGNORECASE,
)
CHARACTERS_READ: Final = 500  # a message begins with the reason; further on it may quote the text itself


def says_too_long(body: str) -> bool:
    """Whether this body of an error says that the prompt or the text was too long."""
    error = _error(body)
    parameter = error.get("param")  # an endpoint of somebody else's may send anything
    return (
        (isinstance(parameter, str) and parameter in TOO_LONG_PARAMETERS)
        or error.get("code") == TOO_LONG_CODE
        or TOO_LONG_WORDS.search(str(error["message"])[:CHARACTERS_READ]) is not None
    )


def _error(body: str) -> dict[str, Any]:
    """The error in OpenAI's form; of any other body, the whole is the message."""
    try:
        document = json.loads(body)
    except ValueError:
        return {"message": body}
    error = document.get("error", document) if isinstance(document, dict) else document
    return {"message": body, **error} if isinstance(error, dict) else {"message": error}

"""An embeddings server whose vectors follow from the words alone, with faults on demand."""

import hashlib
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "words"
DIMENSION = 64
REFUSED_WORD = "unembeddable"
WORD = re.compile(r"\w+")


def vector_of(text: str, salt: str = "") -> list[float]:
    """Texts that share words are near; `salt` makes another model of it."""
    vector = [0.0] * DIMENSION
    for word in WORD.findall(text.lower()):
        digest = hashlib.sha256((salt + word).encode()).digest()
        vector[digest[0] % DIMENSION] += 1.0 if digest[1] % 2 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def tokens_of(text: str) -> int:
    """A word is a token."""
    return len(WORD.findall(text))


def too_long(longest: int, tokens: int) -> Any:
    """The answer of vLLM to a text that is longer than its model takes; its own shape is shown by e2e."""
    message = (
        f"This model's maximum context length is {longest} tokens. However, your prompt contains {tokens} "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
        "the input prompt."
    )
    return {"error": {"message": message, "type": "BadRequestError", "param": "input_tokens", "code": 400}}


@dataclass(slots=True)
class EmbedderState:
    """The requests of an embedder's double, and how it shall answer."""

    texts: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)  # statuses to give first, one a request
    salt: str = ""
    longest_tokens: int = 256
    url: str = ""
    answered_at_most: int | None = None  # texts; the next request waits until it is let go
    holding: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def hold_after(self, texts: int) -> None:
        """Answer so many more texts, then nothing until `let_go`."""
        self.answered_at_most = len(self.texts) + texts

    def let_go(self) -> None:
        """Answer again."""
        self.answered_at_most = None
        self.may_go_on.set()

    def wait_while_held(self) -> None:
        if self.answered_at_most is not None and len(self.texts) >= self.answered_at_most:
            self.holding.set()
            self.may_go_on.wait(300)


class Handler(BaseHTTPRequestHandler):
    """OpenAI's two paths."""

    state: EmbedderState

    def do_GET(self) -> None:
        models = [{"id": MODEL, "object": "model", "max_model_len": self.state.longest_tokens}]
        self._answer(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.wait_while_held()
        self.state.authorizations.append(self.headers["Authorization"])
        if self.state.failures:
            self._answer(self.state.failures.pop(0), {"error": {"message": "told to fail"}})
        elif body["model"] != MODEL:
            self._answer(404, {"error": {"message": "no such model"}})
        elif any(REFUSED_WORD in text for text in body["input"]):
            self._answer(400, {"error": {"message": "this text is not for this model"}})
        elif (longest := max(map(tokens_of, body["input"]))) > self.state.longest_tokens:
            self._answer(400, too_long(self.state.longest_tokens, longest))
        else:
            self.state.texts += body["input"]
            data = [
                {"index": index, "embedding": vector_of(text, self.state.salt)}
                for index, text in enumerate(body["input"])
            ]
            self._answer(200, {"object": "list", "data": data})

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[EmbedderState]:
    """The server on a free port."""
    state = EmbedderState()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.let_go()
        server.shutdown()
        server.server_close()
        thread.join()

"""Counts tokens as the embedder does, so that no chunk is longer than it takes.

The plan step finds the embedder's own `tokenizer.json` (in the model folder mounted beside it, else at the
hub) and keeps a copy in the workspace; every shard reads that copy, so all of them cut alike and only one
pod needs the model's claim. Where there is none, `PlainTokenizer` counts more tokens than any real one
should: chunks come out shorter, never too long.
"""

import re
from pathlib import Path
from typing import Protocol

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from tokenizers import Tokenizer as FastTokenizer

from flotilla_runtime.contract import BuildReason, Embedder
from flotilla_runtime.indexing.errors import BuildError

TOKENIZER_FILE = "tokenizer.json"
PIECES = re.compile(r"[^\W\d_]{1,3}|\d|[^\s\w]|_")


class Tokenizer(Protocol):
    """What the chunker asks of a tokenizer."""

    @property
    def name(self) -> str:
        """How reports call it."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every token in `text`, in order, without those a model adds around it."""


class PlainTokenizer:
    """At most three letters, one digit or one sign a token, which is finer than vocabularies are."""

    name = "Plain"

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every piece."""
        return [match.span() for match in PIECES.finditer(text)]


class ModelTokenizer:
    """The embedder's own tokenizer."""

    name = "Model"

    def __init__(self, content: str) -> None:
        self._tokenizer = FastTokenizer.from_str(content)
        # The file may ask to cut or fill every text to the model's length, which would hide how long it is.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every token; a token of no width (a normaliser's) is left out."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return [(start, end) for start, end in offsets if end > start]


def find_tokenizer(embedder: Embedder, folder: Path, hub_token: str | None) -> str | None:
    """The content of the embedder's tokenizer file, or None when it has none that can be had."""
    mounted = folder / TOKENIZER_FILE
    if mounted.is_file():
        return mounted.read_text(encoding="utf-8")
    if embedder.tokenizer_repository is None:
        return None
    try:
        path = hf_hub_download(
            embedder.tokenizer_repository,
            TOKENIZER_FILE,
            revision=embedder.tokenizer_revision,
            token=hub_token or False,
        )
    except LocalEntryNotFoundError as error:  # no connection: worth another try, unlike a missing file
        raise BuildError(
            BuildReason.EMBEDDER_UNREACHABLE, f"the embedder's tokenizer cannot be fetched: {error}"
        ) from None
    except HfHubHTTPError:
        return None
    return Path(path).read_text(encoding="utf-8")


def make_tokenizer(content: str | None) -> Tokenizer:
    """The tokenizer of a file's content, the plain one for None."""
    return PlainTokenizer() if content is None else ModelTokenizer(content)

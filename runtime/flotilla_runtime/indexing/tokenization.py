"""Counts tokens like the embedder, so that no chunk is longer than it accepts.

The plan step finds the embedder's `tokenizer.json` in the mounted model folder, else at the hub, and puts a
copy into the workspace. All shards use that copy, so they cut in the same way, and only one pod needs the
model's claim. Without that file, `PlainTokenizer` is used. It should count more tokens than any real
tokenizer, so chunks become shorter than necessary, but never too long.
"""

import logging
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from tokenizers import Tokenizer as FastTokenizer

from flotilla_runtime.contract import BuildReason, Embedder
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.pieces import PlainTokenizer, Tokenizer

TOKENIZER_FILE = "tokenizer.json"
logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # with HF_DEBUG it writes down requests


class ModelTokenizer:
    """The embedder's own tokenizer."""

    name = "Model"

    def __init__(self, content: str) -> None:
        self._tokenizer = FastTokenizer.from_str(content)
        # The file may ask to truncate or pad texts to the model's length, which would hide their real length.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every token; empty tokens, which normalisers can make, are left out."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return [(start, end) for start, end in offsets if end > start]


def find_tokenizer(embedder: Embedder, folder: Path, hub_token: str | None) -> str | None:
    """The content of the embedder's tokenizer file; None when there is none."""
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
    except LocalEntryNotFoundError as error:  # no connection, so another try can help; a missing file cannot
        raise BuildError(
            BuildReason.EMBEDDER_UNREACHABLE,
            f"the tokenizer of the embedding model cannot be fetched from the hub: {what_failed(error)}",
        ) from None
    except HfHubHTTPError:
        return None
    return Path(path).read_text(encoding="utf-8")


def make_tokenizer(content: str | None) -> Tokenizer:
    """The tokenizer for the content of a tokenizer file; the plain one for None."""
    return PlainTokenizer() if content is None else ModelTokenizer(content)

"""The input of a simulated engine and the events that it reports."""

from dataclasses import dataclass
from enum import StrEnum

from engine_double.kv_cache import BlockKey


class FinishReason(StrEnum):
    """Why a request ended, as vLLM's metric names it."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """How fast the simulated engine is."""

    prefill_tokens_per_second: float
    decode_step_seconds: float
    decode_step_seconds_per_sequence: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the simulated engine does at once."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_blocks: int
    block_tokens: int
    prefix_caching: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sequence to compute; its reply is known in advance, and `block_keys` cover prompt and reply.

    `reply_tokens` is 0 for an embedding, which ends with its prompt.
    """

    id: str
    prompt_tokens: int
    reply_tokens: int
    block_keys: tuple[BlockKey, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The times and sizes of a finished request, which vLLM's histograms observe."""

    request: Request
    arrived: float
    scheduled: float | None
    first_token: float | None
    finished: float
    generated_tokens: int
    cached_tokens: int
    preemptions: int
    reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A request got a token; `index` counts from 0."""

    request_id: str
    index: int
    at: float
    since_last_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A request has ended."""

    request_id: str
    record: Record


Event = Generated | Finished


@dataclass(slots=True, kw_only=True)
class Counters:
    """Numbers of the engine's work since it started."""

    prefix_queries_tokens: int = 0
    prefix_hits_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0

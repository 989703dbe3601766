"""Plans of the benchmark's tasks, and the scale of time and tokens. Pure.

Times of a task are seconds of the story: tools of 2 s, calls of 1 s. A run is `speed` times faster: the
engine double computes so much faster, and tools answer so much sooner. Tokens are a tenth of the story's,
and the double reads a tenth as many in a second, so a cold history of 20,000 tokens costs 1.8 s all the same.
"""

import random
from dataclasses import dataclass
from typing import Any, Final

CALL_SECONDS: Final = 1.0
TOOL_SECONDS: Final = 2.0
SPREAD: Final = 0.25  # of a tool's time, up and down
CALLS: Final = 10  # of a task
SLOTS: Final = 5
WARM_TASKS: Final = 16
HISTORY_TOKENS: Final = 2000  # at the end, in the double's tokens
ADDED_TOKENS: Final = 30  # to the history in each step
REPLY_TOKENS: Final = 10
PREFILL_TOKENS_PER_SECOND: Final = 11_300 / 10
BLOCK_TOKENS: Final = 16
ROOM_TOKENS: Final = 2048  # of a whole history, in whole blocks, with the last answer
CHARACTERS_PER_TOKEN: Final = 4
WORD: Final = "so it is told "

DEATH_CALLS: Final = 15  # of a task of 45 s
DEATH_AT_SECONDS: Final = 39.0  # in the 40th second, or with the next call


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The input of a task. `even` tools all take the same time."""

    task: int
    seed: int
    calls: int = CALLS
    speed: float = 1.0
    even: bool = False


def tool_ms(order: Order, step: int) -> int:
    """How long the tool of a step takes, in milliseconds of the run."""
    drawn = random.Random(f"{order.seed}/{order.task}/{step}").uniform(1 - SPREAD, 1 + SPREAD)
    return round(1000 * TOOL_SECONDS * (1.0 if order.even else drawn) / order.speed)


def grown(order: Order, step: int) -> str:
    """Text that a step adds to the history, most of which is there in the first: no two tasks share it."""
    tokens = ADDED_TOKENS if step else HISTORY_TOKENS - (order.calls - 1) * ADDED_TOKENS
    text = f"[{order.task}/{step}] " + WORD * (tokens * CHARACTERS_PER_TOKEN // len(WORD) + 1)
    return text[: tokens * CHARACTERS_PER_TOKEN]


def double_config(speed: float) -> dict[str, Any]:
    """The engine double: its slots, its room for warm histories, and its speeds."""
    return {
        "max_num_seqs": SLOTS,
        "max_num_batched_tokens": 512,
        "block_tokens": BLOCK_TOKENS,
        "kv_blocks": WARM_TASKS * ROOM_TOKENS // BLOCK_TOKENS,
        "prefill_tokens_per_second": PREFILL_TOKENS_PER_SECOND * speed,
        "decode_step_seconds": CALL_SECONDS / REPLY_TOKENS / speed,
        "reply_tokens": REPLY_TOKENS,
        "prompt_tokens_details": True,
    }


def cold_call_seconds() -> float:
    """Time of a call whose replica knows nothing of a whole history."""
    return CALL_SECONDS + HISTORY_TOKENS / PREFILL_TOKENS_PER_SECOND

"""Names for tasks: they sort by the time of their making, and cannot be guessed."""

from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no two that look alike
BITS_PER_LETTER: Final = 5
RANDOM_BITS: Final = 80
LETTERS: Final = 26


def task_id(wall_ms: int, random_bits: int) -> str:
    """The milliseconds of the time, then the random bits, in 26 letters."""
    number = (wall_ms << RANDOM_BITS) | random_bits
    shifts = range((LETTERS - 1) * BITS_PER_LETTER, -1, -BITS_PER_LETTER)
    return "".join(ALPHABET[(number >> shift) & 31] for shift in shifts)


def is_task_id(text: str) -> bool:
    """Whether this may be a task's name; what is not never reaches Redis."""
    return len(text) == LETTERS and set(text) <= set(ALPHABET)

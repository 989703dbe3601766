"""Task ids: they sort by the time of creation and cannot be guessed."""

from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that look alike
BITS_PER_LETTER: Final = 5
RANDOM_BITS: Final = 80
LETTERS: Final = 26


def task_id(wall_ms: int, random_bits: int) -> str:
    """The time in milliseconds, followed by the random bits, as 26 letters."""
    number = (wall_ms << RANDOM_BITS) | random_bits
    shifts = range((LETTERS - 1) * BITS_PER_LETTER, -1, -BITS_PER_LETTER)
    return "".join(ALPHABET[(number >> shift) & 31] for shift in shifts)


def is_task_id(text: str) -> bool:
    """Whether a text has the form of a task id; Redis is not asked for any other text."""
    return len(text) == LETTERS and set(text) <= set(ALPHABET)

"""The demo's questions over the PostgreSQL manual, each with the pages that answer it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, and the file names of the pages that answer it; a user's question has none."""

    text: str
    right_pages: tuple[str, ...] = ()


QUESTIONS = (
    Question(
        text="Which command removes dead row versions and makes their space available for reuse?",
        right_pages=("sql-vacuum.html", "routine-vacuuming.html"),
    ),
    Question(
        text="How do I create an index without locking out writes to the table?",
        right_pages=("sql-createindex.html", "indexes-intro.html"),
    ),
    Question(
        text="What does the Repeatable Read isolation level guarantee?",
        right_pages=("transaction-iso.html", "mvcc-intro.html", "applevel-consistency.html"),
    ),
)

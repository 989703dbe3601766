"""Thirty questions that a user of PostgreSQL might ask, each with the pages of the manual that answer it.

They were written from the pages, and where it is natural in other words than the headings, before retrieval
was tried on them. Most have one right page; some have two, because the manual says the same on both.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question and the file names of its right pages, each of which counts as a hit."""

    question: str
    pages: tuple[str, ...]


def _pair(question: str, *pages: str) -> Pair:
    return Pair(question=question, pages=pages)


PAIRS = (
    _pair(
        "How do I get back disk space that deleted rows still take up?",
        "routine-vacuuming.html",
        "sql-vacuum.html",
    ),
    _pair("Can I add an index to a busy table without stopping writes?", "sql-createindex.html"),
    _pair("Which index type suits arrays and other values that contain many parts?", "indexes-types.html"),
    _pair("Can an index cover only those rows that satisfy a condition?", "indexes-partial.html"),
    _pair(
        "How can an index be built on the result of a function such as lower(name)?",
        "indexes-expressional.html",
    ),
    _pair("When does the planner combine several indexes in one query?", "indexes-bitmap-scans.html"),
    _pair(
        "What must an index contain so that a query never has to visit the table?",
        "indexes-index-only-scans.html",
    ),
    _pair("Which anomalies can still happen in Read Committed mode?", "transaction-iso.html"),
    _pair(
        "How do two sessions end up waiting for each other for ever, and what does the server do?",
        "explicit-locking.html",
    ),
    _pair("What are advisory locks good for?", "explicit-locking.html"),
    _pair("How do readers and writers avoid blocking each other?", "mvcc-intro.html"),
    _pair("How do I split a huge table by date ranges?", "ddl-partitioning.html"),
    _pair(
        "How can I let each user see only their own rows?", "ddl-rowsecurity.html", "sql-createpolicy.html"
    ),
    _pair("What happens to referencing rows when the referenced row is deleted?", "ddl-constraints.html"),
    _pair("How is a column computed automatically from other columns?", "ddl-generated-columns.html"),
    _pair(
        "How does one table inherit the columns of another?", "ddl-inherit.html", "tutorial-inheritance.html"
    ),
    _pair("In which order are schemas searched for an unqualified table name?", "ddl-schemas.html"),
    _pair("How can an UPDATE give back the rows that it changed?", "dml-returning.html", "sql-update.html"),
    _pair("How do I write a query that follows a tree of parents and children?", "queries-with.html"),
    _pair("What is the difference between UNION and UNION ALL?", "queries-union.html", "sql-select.html"),
    _pair(
        "How do I restore a database to the state it had at a certain moment?", "continuous-archiving.html"
    ),
    _pair("How do I dump a single database to a file and load it again?", "backup-dump.html"),
    _pair("Is it enough to copy the data directory while the server is running?", "backup-file.html"),
    _pair("How do I read the costs in the output of EXPLAIN?", "using-explain.html"),
    _pair("What makes loading a lot of data at once faster?", "populate.html"),
    _pair("Why does the planner misjudge row counts when columns are correlated?", "planner-stats.html"),
    _pair(
        "Which setting limits the memory of a sort before it goes to disk?", "runtime-config-resource.html"
    ),
    _pair(
        "What do I lose if I turn off synchronous commit?", "wal-async-commit.html", "runtime-config-wal.html"
    ),
    _pair("How do I set up a second server that follows the primary as it writes?", "warm-standby.html"),
    _pair("How can search results be ordered by how well they match the words?", "textsearch-controls.html"),
)

"""The demo's documents: a folder that the user names, else the PostgreSQL manual, else our own docs.

The manual has 1,100 pages. The demo takes 191 of them: the tutorial, the chapters on data definition and
manipulation, queries, indexes, concurrency, roles, text search and maintenance, and the reference pages of
the statements that those chapters describe. That is enough for a search to return a wrong page, and few
enough for two cores to embed in minutes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MANUAL = Path("/usr/share/doc/postgresql-doc-15/html")
CHAPTERS = (
    *("tutorial", "ddl", "dml", "queries", "indexes", "mvcc", "transaction-iso", "explicit-locking"),
    *("applevel-consistency", "locking-indexes", "routine", "backup", "continuous-archiving"),
    *("performance-tips", "using-explain", "planner-stats", "populate", "wal", "monitoring", "warm-standby"),
    *("textsearch", "logical-replication", "runtime-config-resource", "runtime-config-wal", "user-manag"),
    *("role", "client-authentication", "auth"),
)
STATEMENTS = (
    *("altertable", "analyze", "begin", "checkpoint", "cluster", "commit", "copy", "createdatabase"),
    *("createindex", "creatematerializedview", "createpolicy", "createpublication", "createrole"),
    *("createschema", "createsequence", "createstatistics", "createsubscription", "createtable"),
    *("createtablespace", "createtrigger", "createview", "delete", "dropindex", "droptable", "explain"),
    *("grant", "insert", "listen", "lock", "merge", "notify", "prepare", "refreshmaterializedview"),
    *("reindex", "revoke", "rollback", "savepoint", "select", "selectinto", "set-transaction", "truncate"),
    *("update", "vacuum", "values"),
)
ENDINGS = frozenset({".html", ".htm", ".md", ".txt", ".pdf"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Files of one folder, named relative to it."""

    title: str
    folder: Path
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A hash of all names and contents; it changes when any of them does."""
        digest = hashlib.sha256()
        for name in self.names:
            content = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            digest.update(f"{name} {content}\n".encode())
        return digest.hexdigest()[:12]


def _in_demo(page: str) -> bool:
    stem = page.removesuffix(".html")
    if stem.startswith("sql-"):
        return stem.removeprefix("sql-") in STATEMENTS
    return any(stem == chapter or stem.startswith(f"{chapter}-") for chapter in CHAPTERS)


def folder_corpus(folder: Path, title: str | None = None) -> Corpus:
    """Every file below the folder with an ending that the index can read."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix.lower() in ENDINGS
    )
    return Corpus(title=title or str(folder), folder=folder, names=tuple(names))


def demo_corpus(manual: Path = MANUAL) -> Corpus:
    """The chosen pages of the manual where it is installed, else the project's own docs."""
    if not manual.is_dir():
        return folder_corpus(ROOT / "docs", "Flotilla's own docs")
    names = tuple(sorted(page.name for page in manual.glob("*.html") if _in_demo(page.name)))
    return Corpus(title="the PostgreSQL manual", folder=manual, names=names)

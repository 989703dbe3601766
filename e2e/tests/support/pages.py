"""The documents of the cluster tests: some of the demo's, so that two cores embed them quickly."""

from dataclasses import replace

from demo.corpus import MANUAL, Corpus, demo_corpus

CHAPTERS = (
    *("tutorial", "queries", "indexes", "mvcc", "transaction-iso", "applevel-consistency", "routine"),
    *("sql-vacuum", "sql-createindex"),
)


def some_pages() -> Corpus:
    """The right pages of the demo's questions, and others. Without the manual: all documents of the demo."""
    corpus = demo_corpus()
    if corpus.folder != MANUAL:
        return corpus
    return replace(corpus, names=tuple(name for name in corpus.names if name.startswith(CHAPTERS)))

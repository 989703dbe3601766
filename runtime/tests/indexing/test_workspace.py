"""Values that a step writes for the next one come back as they were written."""

from pathlib import Path

from flotilla_runtime.contract import DeadLetter
from flotilla_runtime.indexing.records import SourceDocument
from flotilla_runtime.indexing.workspace import BuildPlan, Workspace

LINE_ENDS = "a\u2028b\u2029c\u0085d\x0be\rf\ng.txt"  # each may be in a file's name


def test_a_name_may_hold_any_line_end(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "b1")
    documents = [SourceDocument(path=LINE_ENDS, size_bytes=1), SourceDocument(path="b.txt", size_bytes=2)]
    plan = BuildPlan(discovered=3, dead_lettered=1, shards=1, tokenizer="Plain")
    letter = DeadLetter(document=LINE_ENDS, reason="Empty", message=LINE_ENDS)
    workspace.write_plan(plan, None, [documents])
    workspace.write_dead_letters("00000", [letter])
    assert workspace.shard(0) == documents
    assert workspace.dead_letters() == [letter]

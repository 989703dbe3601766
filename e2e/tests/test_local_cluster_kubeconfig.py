"""A kubeconfig that is written again while others read it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_cluster.kubeconfig import put

TEXT = "a line of a kubeconfig\n" * 5_000
READS = 300


def test_a_reader_never_sees_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    put(path, TEXT)
    with ThreadPoolExecutor(2) as writers:
        written = [writers.submit(put, path, TEXT) for _ in range(READS)]
        seen = {path.read_text() for _ in range(READS)}
        for writing in written:
            writing.result()
    assert seen == {TEXT}
    assert [file.name for file in tmp_path.iterdir()] == ["kubeconfig"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

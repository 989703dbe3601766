"""Downloaders that wait for each other. Two real ones, and one killed: e2e/tests/test_one_downloader.py."""

import fcntl
import os
from pathlib import Path

from flotilla_runtime.models import lock


def test_who_comes_second_says_so_and_goes_on_when_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "model"
    folder.parent.mkdir()
    first = os.open(folder.parent / ".model.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            os.close(first)

    said: list[str] = []
    with lock.held(folder, said.append, sleep=sleep):
        assert slept == [lock.LOOK_SECONDS] * 3
    assert said == [f"another replica is fetching files into {folder}; waiting until it is done"]


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with lock.held(tmp_path / "model", said.append):
            pass
    assert said == []


def test_two_folders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    said: list[str] = []
    with lock.held(tmp_path / "one", said.append), lock.held(tmp_path / "other", said.append):
        pass
    assert said == []

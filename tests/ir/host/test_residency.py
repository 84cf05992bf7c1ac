"""Mapped files are let go of, and nothing that was written is."""

import sys

import numpy as np
import psutil
import pytest
from graphwright.ir.host.residency import bring_in, release

SIZE = 64 << 20
linux = sys.platform == "linux"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(np.arange(SIZE // 4, dtype=np.int32).tobytes())
    return path


def resident():
    return psutil.Process().memory_info().rss


def test_pages_go_and_come_back_unchanged(file):
    mapped = np.memmap(file, dtype=np.int32, mode="r")
    total, before = mapped.sum(dtype=np.int64), resident()
    release()
    if linux:
        assert before - resident() > SIZE / 2
    assert mapped.sum(dtype=np.int64) == total


def test_what_was_written_stays(file):
    mapped = np.memmap(file, dtype=np.int32, mode="c")
    mapped[SIZE // 8] = -1
    release()
    assert mapped[SIZE // 8] == -1
    assert file.stat().st_size == SIZE


@pytest.mark.skipif(not linux, reason="pages are brought in on Linux alone")
def test_what_is_mapped_of_a_folder_is_brought_in_and_nothing_else(file, tmp_path):
    mapped = np.memmap(file, dtype=np.int32, mode="r")
    (tmp_path / "weight").mkdir()
    before = resident()
    bring_in(tmp_path / "weight")  # a folder beside the file, with a name that the file's begins with
    assert resident() - before < SIZE / 2
    bring_in(tmp_path)
    assert resident() - before > SIZE / 2
    assert mapped[5] == 5

"""Temporary directories and locks: what a killed process left goes, what a living one holds stays."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest
from graphwright.ir.host import locks, temporary
from graphwright.ir.host.locks import hold, left_behind
from graphwright.ir.host.temporary import TemporaryFolder

HOLDER = """
import sys, time
from graphwright.ir.host.temporary import TemporaryFolder
folder = TemporaryFolder()
print(folder.name, flush=True)
time.sleep(120)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_NEW", -1.0)
    temporary._tidy.cache_clear()
    yield tmp_path
    temporary._tidy.cache_clear()


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(folder):
    line = [sys.executable, "-c", HOLDER]
    environment = {**os.environ, "TMPDIR": str(folder)}
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    try:
        left, held = (process.stdout.readline().strip() for process in processes)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert os.path.isdir(left)
        (folder / "graphwright-somebody-else").mkdir()
        with TemporaryFolder() as own:
            names = {os.path.basename(path) for path in (own, held)}
            assert {path.name for path in folder.iterdir()} == {*names, "graphwright-somebody-else"}
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_folder_goes_with_its_object(folder):
    made = TemporaryFolder()
    assert os.path.isdir(made.name)
    made.cleanup()
    assert list(folder.iterdir()) == []


def test_new_folders_are_left_alone(folder, monkeypatch):
    monkeypatch.setattr(temporary, "_NEW", 60.0)
    fresh = folder / "graphwright-run-fresh"
    fresh.mkdir()
    TemporaryFolder().cleanup()
    assert fresh.exists()


def test_a_directory_has_one_holder(tmp_path):
    lock = hold(tmp_path)
    with left_behind(tmp_path) as left:
        assert not left
    with pytest.raises(BlockingIOError):
        hold(tmp_path)
    os.close(lock)
    with left_behind(tmp_path) as left:
        assert left
        with pytest.raises(BlockingIOError):
            hold(tmp_path)
    with left_behind(tmp_path / "gone") as left:
        assert not left


def test_without_locks_only_what_is_old_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    assert hold(tmp_path) is None
    with left_behind(tmp_path) as left:
        assert not left
    monkeypatch.setattr(locks, "_LONG", -1.0)
    with left_behind(tmp_path) as left:
        assert left

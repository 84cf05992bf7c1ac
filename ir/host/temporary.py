"""Temporary directories that go with their process; what a killed one left, the next one removes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import weakref
from functools import cache
from pathlib import Path

from .locks import hold, left_behind

_PREFIX = "graphwright-run-"
_NEW = 60.0  # seconds in which a directory may be about to be locked


class TemporaryFolder(tempfile.TemporaryDirectory):
    """A directory in TMPDIR, removed with the object, by `cleanup`, at the end of a `with` or at exit.

    Raises:
        OSError: there is nowhere to make it.
    """

    def __init__(self) -> None:
        _tidy()
        super().__init__(prefix=_PREFIX, ignore_cleanup_errors=True)
        with contextlib.suppress(OSError):
            lock = hold(Path(self.name))
            if lock is not None:
                weakref.finalize(self, os.close, lock)


@cache
def _tidy() -> None:
    """Once a process."""
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
            with contextlib.suppress(OSError):
                stat = path.lstat()
                mine = stat.st_uid == os.getuid() if hasattr(os, "getuid") else False
                if mine and time.time() - stat.st_mtime > _NEW and not path.is_symlink():
                    with left_behind(path) as left:
                        if left:
                            shutil.rmtree(path, ignore_errors=True)

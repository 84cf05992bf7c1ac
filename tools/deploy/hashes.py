"""Digests of files, remembered by what the system says of them, so that gigabytes are read once."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import sha256
from ...ir.host.files import check_regular

SETTLED = 2.0  # seconds after which a file's time tells a change: file systems count in steps
MOST = 10_000  # files remembered


class Hashes:
    """Files' digests. A file is taken for the one that was read while its size, times and inode are the same.

    Args:
        path: where they are kept between runs; None reads every file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if path is not None:
            with suppress(OSError, ValueError):
                found = json.loads(path.read_bytes())
                self._known = found if isinstance(found, dict) else {}

    def of(self, path: Path) -> str:
        """The hex sha256 of a file. Raises OSError: there is none, or it can't be read."""
        where = str(path.absolute())
        before = _told(path)
        known = self._known.get(where)
        if isinstance(known, list) and known[:-1] == before and isinstance(known[-1], str):
            return known[-1]
        check_regular(path)
        digest = sha256(path)
        if _told(path) == before and time.time() - max(before[1:3]) / 1e9 > SETTLED:
            self._known.pop(where, None)
            self._known[where] = [*before, digest]
            self._changed = True
        return digest

    def remembered(self, key: str, find: Callable[[], list[str]]) -> list[str]:
        """What was found under a key that holds a digest, now or before."""
        known = self._known.get(key)
        if not isinstance(known, list) or not all(isinstance(each, str) for each in known):
            known = self._known[key] = find()
            self._changed = True
        return known

    def save(self) -> None:
        """Keep them, whole or not at all; where that can't be, files are read again."""
        if self._path is None or not self._changed:
            return
        kept = dict(list(self._known.items())[-MOST:])
        partial = self._path.with_suffix(f".{secrets.token_hex(8)}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps(kept))
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)


def _told(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]

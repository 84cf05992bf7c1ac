"""Memory that files back: weights are mapped, so what is not needed now can be read again later."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

_SMAPS = Path("/proc/self/smaps")
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)")
_LARGE = 1 << 24  # bytes; what is smaller is not worth a system call
_DONTNEED, _POPULATE_READ = 4, 22  # from <sys/mman.h>
_WORTH = 1 << 28  # bytes; for less than this, asking the system what is mapped takes longer than it is worth


def release(read: int = _WORTH) -> None:
    """Let go of the resident pages of files that this process maps; reading brings them back unchanged.

    A mapping with pages of the process's own (written to, copied on write) is left alone. Nothing happens on
    systems other than Linux.

    Args:
        read: bytes of weights that were just read; few stay where they are.
    """
    if read < _WORTH or not _SMAPS.exists():
        return
    madvise = ctypes.CDLL(None).madvise
    for start, end in list(_clean()):
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def bring_in(folder: Path) -> None:
    """Make resident what this process maps of the files in a folder, so that no later call waits for a page.

    Nothing happens on systems other than Linux, or before Linux 5.14.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    madvise, within = ctypes.CDLL(None).madvise, f"{folder.resolve()}/"
    for line in maps.read_text().splitlines():
        _, slash, rest = line.partition("/")
        if (head := _HEAD.match(line)) and (slash + rest).startswith(within):
            start, end = int(head[1], 16), int(head[2], 16)
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _POPULATE_READ)


def _clean() -> Iterator[tuple[int, int]]:
    """(start, end) of each large mapping of a file without a page of the process's own."""
    start = end = inode = resident = 0
    for line in _SMAPS.read_text().splitlines():
        if head := _HEAD.match(line):
            start, end, inode = int(head[1], 16), int(head[2], 16), int(head[3])
        elif line.startswith("Rss:"):
            resident = 1024 * int(line.split()[1])
        elif line.startswith("Anonymous:") and inode and resident >= _LARGE and line.split()[1] == "0":
            yield start, end

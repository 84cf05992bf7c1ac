"""tar archives that are the same bytes whenever they are made: sorted, without times and owners."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import IO, Any

from .content import Source, streamed

LEVEL = 10  # of zstd: weights hardly shrink further, and higher ones take minutes


def write_tar(file: Any, entries: Mapping[str, Source], programs: Iterable[str] = ()) -> None:
    """Write files as a POSIX (pax) tar, each directory before what lies in it.

    Args:
        file: open for writing; need not seek.
        entries: place -> content, of any order.
        programs: places that get the mode 755; others get 644.
    """
    executable = frozenset(programs)
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for folder in _folders(entries):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for place, source in sorted(entries.items()):
            entry = tarfile.TarInfo(place)
            entry.mode = 0o755 if place in executable else 0o644
            entry.size = len(source) if isinstance(source, bytes) else source.stat().st_size
            with streamed(source) as content:
                archive.addfile(entry, content)


def write_tar_zst(file: IO[bytes], entries: Mapping[str, Source], programs: Iterable[str] = ()) -> None:
    """The same, compressed by zstd on one thread: more would make the bytes depend on the machine."""
    from zstandard import ZstdCompressor

    with ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(file, closefd=False) as compressed:
        write_tar(compressed, entries, programs)


def _folders(places: Iterable[str]) -> list[str]:
    above = {str(folder) for place in places for folder in PurePosixPath(place).parents}
    return sorted(above - {"."})

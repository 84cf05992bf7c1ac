"""Files that somebody else wrote: read only where they are files, and only so much of them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What libraries raise, beside OSError and classes of their own, for content that nobody meant to write."""

MIB = 1 << 20


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, open for reading. A pipe, a device or a socket might never end, or never begin.

    Raises:
        OSError: as `open`; "not a regular file" for anything else than one.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        check_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: as `open_regular`; "larger than ... MB" where it is.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most / MIB:g} MB", str(path))
    return content


def check_regular(path: str | Path, mode: int | None = None) -> None:
    """Raises OSError for what is there and no regular file, a link to one included."""
    mode = os.stat(path).st_mode if mode is None else mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a directory", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def why(error: BaseException) -> str:
    """An error's reason in a few words, without its number, its path and its further lines."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    lines = str(error).strip().splitlines()
    if isinstance(error, KeyError) or not lines:
        return f"{type(error).__name__} {' '.join(lines)}".strip()
    return lines[0][:200]


def path_of(value: Any) -> str:
    """A path as text. Raises ValueError for one that no system takes."""
    text = os.fsdecode(value)
    if "\0" in text:
        raise ValueError("a path holds no NUL character")
    return text

"""Directories that belong to a process as long as it lives: numbers of processes are the same again in every
container, a lock goes with whoever held it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GraphwrightError
from .files import why

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

_LONG = 3600.0  # seconds after which a directory is nobody's, where file systems know no locks


def hold(directory: Path) -> int | None:
    """A descriptor that locks a directory until it is closed; None where file systems know no locks.

    Raises:
        OSError: somebody else has it, or it is gone.
    """
    if fcntl is None:
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            os.close(descriptor)
            return None
        if not os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            raise FileNotFoundError(f"{directory} was replaced")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def alone(directory: Path, kind: type[GraphwrightError], busy: str) -> Iterator[None]:
    """The directory for this process alone while the block runs.

    Raises:
        kind: with `busy`, another process has it; or why it can't be opened.
    """
    try:
        lock = hold(directory)
    except BlockingIOError:
        raise kind(busy) from None
    except OSError as error:
        raise kind(f"{directory} can't be opened: {why(error)}") from error
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def left_behind(directory: Path) -> Iterator[bool]:
    """Whether nobody holds a directory; and nobody can while the block runs."""
    lock, left = None, False
    try:
        lock = hold(directory)
        left = lock is not None or time.time() - directory.lstat().st_ctime > _LONG
    except OSError:
        pass
    try:
        yield left
    finally:
        if lock is not None:
            os.close(lock)

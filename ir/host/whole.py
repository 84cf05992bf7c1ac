"""A file that appears under its name whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import BundleError
from .files import why


@contextmanager
def written(target: Path, force: bool) -> Iterator[IO[bytes]]:
    """A new file to write, read and seek in, which takes its name when the block ends; nothing is left when
    it raises.

    Args:
        force: replace a file of that name.

    Raises:
        BundleError: the name is taken, or can't be written.
    """
    check_free(target, force)
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".partial", f".{target.name[:100]}.", target.parent)
        partial = Path(name)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, target)
        partial = None
    except (OSError, ValueError) as error:
        raise BundleError(f"{target} can't be written: {why(error)}") from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink()


def check_free(target: Path, force: bool) -> None:
    """Refuse a name that something has, other than a file that `force` may replace. Raises BundleError."""
    if not os.path.lexists(target):
        return
    if not force:
        raise BundleError(f"{target} exists already; choose another directory, or --force to replace it")
    if not target.is_file() or target.is_symlink():
        raise BundleError(f"{target} is not a file, so --force does not replace it; choose another directory")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

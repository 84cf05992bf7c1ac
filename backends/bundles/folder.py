"""A directory that appears under its name whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...ir.errors import BundleError
from ...ir.host.files import why
from ...ir.host.locks import hold, left_behind
from .manifest import MANIFEST


@contextmanager
def appearing(target: Path, force: bool, mark: str = MANIFEST) -> Iterator[Path]:
    """A new directory to fill, which takes its name when the block ends; nothing is left when it raises.

    Args:
        target: must not exist, or be empty; with `force` it may be a bundle, which makes room last.
        mark: the file that every directory of the kind has, and that alone.

    Raises:
        BundleError: the directory exists, or can't be written.
    """
    partial, lock = target, None
    try:
        check_free(target, force, mark)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, lock = _claimed(target)
        yield partial
        _sync(partial)
        _move(partial, target, force, mark)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f"no space left for {target.name} in {target.parent}: make room and run again"
            ) from error
        raise BundleError(f"it can't be written to {target}: {why(error)}") from error
    finally:
        if lock is not None:
            os.close(lock)
        if partial != target:
            shutil.rmtree(partial, ignore_errors=True)


def check_free(target: Path, force: bool, mark: str = MANIFEST) -> None:
    """Put back what a killed run left half-done, then refuse a place that no bundle can be written to: an
    existing directory, except an empty one and a bundle that `force` may replace, or one without the right.

    Raises:
        BundleError: `appearing` would raise the same after all the work.
    """
    try:
        _tidy(target)
        if not _there(target):
            check_makeable(target)
            return
        if not target.is_dir() or target.is_symlink():
            raise BundleError(f"{target} exists and is not a directory; choose another name")
        if any(target.iterdir()):
            if not force:
                raise BundleError(
                    f"{target} exists already; choose another directory, or --force to replace it"
                )
            if not (target / mark).is_file():
                raise BundleError(
                    f"{target} holds no {mark}, so --force does not replace it; choose another directory"
                )
        check_makeable(target)
    except (OSError, ValueError) as error:
        raise BundleError(f"it can't be written to {target}: {why(error)}") from error


def _there(target: Path) -> bool:
    try:
        os.lstat(target)
    except FileNotFoundError:
        return False
    return True


def check_makeable(target: Path) -> None:
    """Make and remove a directory beside `target`, or as near to it as there is a directory.

    Raises:
        OSError: as the directory's own making would.
    """
    parent = target.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    trial = parent / _beside(target, "partial").name
    trial.mkdir()
    trial.rmdir()


def _beside(target: Path, kind: str) -> Path:
    """A name of its own: every container has a process 1."""
    return target.with_name(f".{target.name}.{secrets.randbelow(10**9)}.{kind}")


def _claimed(target: Path) -> tuple[Path, int | None]:
    """A new directory beside the target, and what locks it."""
    for _ in range(10):
        partial = _beside(target, "partial")
        partial.mkdir()
        with contextlib.suppress(OSError):  # another run has just taken it for left behind
            return partial, hold(partial)
    raise OSError(errno.EBUSY, "other runs write to the same place")


def _tidy(target: Path) -> None:
    """What a killed run left: a bundle that it had moved aside comes back under its name, everything else
    goes. While somebody writes, which is locked, all is left as it is."""
    found: dict[str, list[Path]] = {"old": [], "partial": []}
    for path in sorted(target.parent.glob(f".{glob.escape(target.name)}.*")):
        number, _, kind = path.name.removeprefix(f".{target.name}.").partition(".")
        if kind in found and number.isdigit() and not path.is_symlink():
            found[kind].append(path)
    for path in found["partial"]:
        with left_behind(path) as left:
            if not left:
                return
            shutil.rmtree(path, ignore_errors=True)
    for path in found["old"]:
        if os.path.lexists(target):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)


def _sync(folder: Path) -> None:
    """To disk before the rename, so that a power cut leaves no named but empty bundle."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _move(partial: Path, target: Path, force: bool, mark: str) -> None:
    """Give the finished bundle its name; an old one makes room last and comes back if that fails."""
    if not os.path.lexists(target):
        partial.rename(target)
        return
    check_free(target, force, mark)
    old = _beside(target, "old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)

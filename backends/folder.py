"""A directory that appears under its name whole, or not at all."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ..ir.errors import BundleError
from .manifest import MANIFEST


@contextmanager
def appearing(target: Path, force: bool) -> Iterator[Path]:
    """A new directory to fill, which takes its name when the block ends; nothing is left when it raises.

    Args:
        target: must not exist, or be empty; with `force` it may be a bundle, which makes room last.

    Raises:
        BundleError: the directory exists, or can't be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        _tidy(target)
        check_free(target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        _sync(partial)
        _move(partial, target, force)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f"no space left for the bundle in {target.parent}: make room and run again"
            ) from error
        raise BundleError(f"the bundle can't be written to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(target: Path, force: bool) -> None:
    """Refuse an existing directory, except an empty one and a bundle that `force` may replace.

    Raises:
        BundleError: something is there; `appearing` would raise the same after all the work.
    """
    if not os.path.lexists(target):
        return
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        if force and (target / MANIFEST).is_file():
            return
        if force:
            raise BundleError(
                f"{target} is not a bundle, so --force does not replace it; choose another directory"
            )
        raise BundleError(f"{target} exists already; choose another directory, or --force to replace it")
    raise BundleError(f"{target} exists and is not a directory; choose another name")


def _tidy(target: Path) -> None:
    """What a killed run left, once its process is gone: a bundle that it had moved aside comes back under its
    name, everything else goes."""
    for path in sorted(target.parent.glob(f".{glob.escape(target.name)}.*")):
        pid, _, kind = path.name.removeprefix(f".{target.name}.").partition(".")
        if kind not in ("old", "partial") or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if kind == "old" and not os.path.lexists(target):
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    """To disk before the rename, so that a power cut leaves no named but empty bundle."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _move(partial: Path, target: Path, force: bool) -> None:
    """Give the finished bundle its name; an old one makes room last and comes back if that fails."""
    if not os.path.lexists(target):
        partial.rename(target)
        return
    check_free(target, force)
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)

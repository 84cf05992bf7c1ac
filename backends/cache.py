"""Where what was measured, searched and trained is kept between runs. Standard library only."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """GRAPHWRIGHT_CACHE, or graphwright's folder where this system keeps caches; a temporary one where nobody
    has a home that can be written to, as in many containers."""
    if told := os.environ.get("GRAPHWRIGHT_CACHE"):
        return Path(told)
    try:
        usual = _usual()
    except RuntimeError:  # no HOME, and a user of whom the system knows none
        return _elsewhere()
    return usual if _writable(usual) else _elsewhere()


def homeless() -> str:
    """What to tell a user whose measurements are not kept for good; "" for all others."""
    where = cache_directory()
    if os.environ.get("GRAPHWRIGHT_CACHE") or where != _elsewhere():
        return ""
    return f"there is no home directory to write to, so measurements are kept in {where} (GRAPHWRIGHT_CACHE)"


def _elsewhere() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir(), f"graphwright-cache-{user}")


def _writable(path: Path) -> bool:
    """Whether a directory is there to write to, or can be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    # /proc and its like let nobody make anything, whatever the rights say.
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK) and not path.is_relative_to("/proc")


def _usual() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphwright"
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            / "graphwright"
            / "Cache"
        )
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphwright"

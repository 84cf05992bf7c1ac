"""Measured tiles of the library's kernels, by (kernel, shape, dtype, CPU): shipped ones and the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...cache import cache_directory
from ...target import KIB, Target
from .jsonl import append_lines, read_lines

SHIPPED = Path(__file__).with_name("tiles.jsonl")

Tile = Mapping[str, Any]
"""A kernel's own parameters by name, as JSON holds them."""

_Key = tuple[str, tuple[int, ...], str, str]


def cpu(target: Target) -> str:
    """What a measured tile holds for: instruction sets, L1 data and L2 caches, cores that share the work."""
    isa = "+".join(sorted(target.isa)) or "none"
    return f"{target.arch} {isa} {target.l1d // KIB}K {target.l2 // KIB}K {target.cores}"


def own_file() -> Path:
    """Where this user's measurements are kept."""
    return cache_directory() / "tvm" / "tiles.jsonl"


def lookup(kernel: str, shape: Sequence[int], dtype: str, target: Target) -> dict[str, Any] | None:
    """The tile that measured best for a kernel at a shape; the user's own measurement before a shipped one.

    Args:
        kernel, shape, dtype: as the kernel was recorded by.
        target: only what `cpu` says of it counts.
    """
    key = (kernel, tuple(shape), dtype, cpu(target))
    for path in (own_file(), SHIPPED):
        found = _entries(path).get(key)
        if found is not None:
            return dict(found)
    return None


def record(kernel: str, shape: Sequence[int], dtype: str, target: Target, tile: Tile, ratio: float) -> None:
    """Keep a measured tile in the user's file; a later one for the same key counts instead of it.

    ratio: times as fast as the analytic choice, which is itself recorded with 1 where nothing beat it.

    Raises:
        GraphwrightError: the file can't be written.
    """
    line = {
        "kernel": kernel,
        "shape": list(shape),
        "dtype": dtype,
        "cpu": cpu(target),
        "tile": dict(tile),
        "ratio": round(ratio, 4),
    }
    append_lines(own_file(), [line])


def _entries(path: Path) -> Mapping[_Key, Tile]:
    try:
        stat = path.stat()
    except OSError:
        return {}
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _parsed(path: Path, changed: int, size: int) -> Mapping[_Key, Tile]:
    """The file as it was at that time; lines that say no tile are left out."""
    entries: dict[_Key, Tile] = {}
    for line in read_lines(path):
        try:
            key = (line["kernel"], tuple(line["shape"]), line["dtype"], line["cpu"])
            entries[key] = dict(line["tile"])
        except (TypeError, KeyError, ValueError):
            continue
    return MappingProxyType(entries)

"""What can be measured: programs, and builds on disk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import psutil

from ...ir.errors import MeasureError
from ...ir.program import Program
from ..bundles.manifest import MANIFEST
from ..runtimes.onnxruntime import Scratch
from .process import KINDS

Contestant: TypeAlias = Program | Path | str
HUGE = 1 << 30  # bytes of one contestant, from which on they are loaded in turn


@contextlib.contextmanager
def entries_of(contestants: Mapping[str, Contestant]) -> Iterator[dict[str, tuple[str, Path]]]:
    """(kind, path) of each contestant; programs are saved to a temporary directory meanwhile."""
    scratch: Scratch | None = None
    try:
        entries = {}
        for name, contestant in contestants.items():
            if isinstance(contestant, Program):
                if contestant.dialect != "onnx":
                    raise MeasureError(
                        f"{name} is of the {contestant.dialect} dialect: run to-onnx, then measure"
                    )
                scratch = scratch or Scratch()
                entries[name] = ("onnxruntime", scratch.save(contestant))
            else:
                entries[name] = recognise(name, contestant)
        yield entries
    except OSError as error:
        raise MeasureError(f"nothing can be measured: {error}") from error
    finally:
        if scratch is not None:
            scratch.close()


def recognise(name: str, contestant: Path | str) -> tuple[str, Path]:
    """The kind and path of a contestant given as a path, with or without "kind:" before it.

    Raises:
        MeasureError: there is nothing at the path, or nothing that can be measured.
    """
    found = re.fullmatch(rf"({'|'.join(KINDS)}):(.+)", str(contestant))
    path = Path(found[2] if found else contestant)
    if not path.exists():
        raise MeasureError(f"{name}: there is nothing at {path}")
    if found:
        return found[1], path
    if path.is_file() and path.suffix == ".onnx":
        return "onnxruntime", path
    if (path / MANIFEST).is_file():
        return "bundle", path
    if (path / "config.json").is_file() or (path / "modules.json").is_file():
        return "torch", path
    raise MeasureError(f"{name}: {path} is no .onnx file, bundle or Hugging Face directory")


def too_large(contestants: Iterable[int]) -> bool:
    """Whether contestants of so many bytes had better not sit in memory side by side."""
    sizes = list(contestants)
    return max(sizes) > HUGE or sum(sizes) > psutil.virtual_memory().available / 3


def size_of(path: Path) -> int:
    """Bytes of a contestant on disk, external weights included."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size + sum(
        file.stat().st_size for file in path.parent.iterdir() if file.suffix in (".data", ".onnx_data")
    )

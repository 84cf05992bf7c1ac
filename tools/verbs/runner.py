"""`optimize runner`: builds what runs bundles without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...backends.runners.build import ONNXRUNTIME, TVM, build

__all__ = ["build", "sentences", "to_json"]


def to_json(folder: Path) -> dict[str, Any]:
    """What was written."""
    return {"directory": str(folder), "files": sorted(file.name for file in folder.iterdir())}


def sentences(folder: Path) -> list[str]:
    """The same for a person, and which runtimes it found."""
    here = {file.name for file in folder.iterdir()}
    found = [
        name for name, file in (("ONNX Runtime", ONNXRUNTIME), ("TVM's runtime", TVM[0])) if file in here
    ]
    beside = f"; beside it lies {' and '.join(found)}" if found else "; no runtime is installed here"
    return [f"{folder}: graphwright.h, libgraphwright.so and graphwright-run{beside}"]

"""`optimize pack BUNDLE`: one file that carries a bundle to where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..pack.packing import pack

__all__ = ["pack", "sentence", "to_json"]


def to_json(file: Path) -> dict[str, Any]:
    """What was written."""
    return {"file": str(file), "bytes": file.stat().st_size}


def sentence(file: Path) -> str:
    """The same for a person."""
    return f"{file}: {file.stat().st_size / 1e6:,.1f} MB"

"""Files of one JSON value a line, which outlive a process that is killed while it writes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ....ir.errors import GraphwrightError


def read_lines(path: Path) -> list[Any]:
    """The values in a file, in order; none where there is no file. A line cut short is left out."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    values = []
    for line in content.splitlines():
        with contextlib.suppress(ValueError):
            values.append(json.loads(line))
    return values


def append_lines(path: Path, values: Iterable[Any]) -> None:
    """Add values to a file, which is made where there is none, in one write.

    Raises:
        GraphwrightError: it can't be written.
    """
    added = b"".join(json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                added = b"\n" + added  # whoever wrote last was killed within a line
            os.write(descriptor, added)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise GraphwrightError(
            f"cannot keep what was measured in {path} ({error.strerror}); "
            "set GRAPHWRIGHT_CACHE to a directory that can be written"
        ) from error

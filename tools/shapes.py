"""What a workload's name says: 8x128 is a batch of 8 at length 128, mixed:32 is 32 unequal sentences."""

from __future__ import annotations

import re

SHAPES = ("1x128", "8x128", "1x16", "mixed:32")
_NAME = re.compile(r"(?P<batch>[1-9]\d{0,5})x(?P<length>[1-9]\d{0,6})|mixed:(?P<count>[1-9]\d{0,5})")


def shape_error(name: str) -> str | None:
    """Why `name` names no workload, None when it does."""
    if _NAME.fullmatch(name):
        return None
    return f"{name!r} is no shape; write batch x length (8x128) or a number of sentences (mixed:32)"

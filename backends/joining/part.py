"""What a variant brings into a bundle of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """told: what its manifest says otherwise than that of a bundle of its own. weights: offset -> bytes of
    every tensor in the weights file that it reads."""

    told: Mapping[str, Any]
    weights: Mapping[int, int]

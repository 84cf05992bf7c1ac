"""What every backend offers: build a program for a target, and run what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ..ir.program import Program
from .target import Target

Engine = Literal["onnxruntime", "tvm"]
"""What a bundle can run on."""


class Artifact(Protocol):
    """A built program. Safe to call from several threads."""

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def output_names(self) -> tuple[str, ...]: ...

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises InputError naming the input that is missing or does not fit."""

    def save(self, directory: Path) -> None: ...


class Backend(Protocol):
    """Lowers programs. A backend subclasses this, so that mypy holds it to the protocol; `build` may take
    keywords of its own that have defaults (onnxruntime: providers)."""

    name: str

    def build(self, program: Program, target: Target | None = None, threads: int = 2) -> Artifact: ...

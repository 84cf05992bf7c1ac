"""Which weights of a matrix stay: the shapes that zeros may have.

"unstructured": any. "n:m", such as 2:4: n of every m consecutive inputs of each output. "rxc", such as 4x1:
blocks of r outputs and c inputs that stay or go whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Scope = Literal["matrix", "model"]
_N_OF_M, _BLOCK = re.compile(r"([1-9]\d*):([1-9]\d*)"), re.compile(r"([1-9]\d*)x([1-9]\d*)")


@dataclass(frozen=True)
class Sparsity:
    """block: (outputs, inputs) that go together. few: (n, m), or None where any share of blocks may go."""

    block: tuple[int, int] = (1, 1)
    few: tuple[int, int] | None = None

    @staticmethod
    def read(text: str, sparsity: float | None = None) -> Sparsity:
        """The pattern that a text names.

        Args:
            sparsity: asked for beside it.

        Raises:
            ValueError: it names none, or the sparsity is none.
        """
        if sparsity is not None and not 0 < sparsity < 1:
            raise ValueError(f"sparsity is {sparsity:g}, and the share of zeros is above 0 and below 1")
        if text == "unstructured":
            return Sparsity()
        if found := _N_OF_M.fullmatch(text):
            n, m = map(int, found.groups())
            if n >= m:
                raise ValueError(f"pattern is {text!r}, which keeps {n} of {m}: fewer must stay")
            return Sparsity(few=(n, m))
        if found := _BLOCK.fullmatch(text):
            return Sparsity(block=(int(found[1]), int(found[2])))
        raise ValueError(f'pattern is {text!r}; write unstructured, "2:4" (2 of 4 stay) or 4x1 (blocks)')

    def unfit(self, shape: tuple[int, int]) -> str:
        """Why a matrix of (outputs, inputs) cannot have the pattern; empty if it can."""
        sizes = (1, self.few[1]) if self.few else self.block
        for axis, name in enumerate(("outputs", "inputs")):
            if shape[axis] % sizes[axis]:
                return f"its {shape[axis]} {name} are no multiple of {sizes[axis]}"
        return ""

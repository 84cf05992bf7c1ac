"""Which keys self-attentions show, computed at any length."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ir.blocks.sight import hiding, visible
from ....ir.inputs.cached import settled
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ....ir.spec import UNBOUNDED
from ...common.outputs import computed
from .site import Site


class Seen:
    """The keys that a site's queries see, padding left aside.

    lengths: inclusive bounds of its length; None where that is no size of an input's.

    Raises:
        ValueError: its mask is no mask of keys alone, in words.
    """

    def __init__(self, program: Program, site: Site) -> None:
        self._program, self._attention, self._mask = program, site.attention, site.mask
        size = (site.attention.query.shape or ())[site.attention.layouts[0].index("l")]
        self._symbol = size if isinstance(size, str) else ""
        self.lengths = (size, size) if isinstance(size, int) else program.symbols.get(self._symbol)
        self._known: dict[int, np.ndarray] = {}

    def __call__(self, length: int) -> np.ndarray:
        """(queries, keys) bool where all tokens are kept."""
        if length not in self._known:
            self._known[length] = self._computed(length, 1, "ones")[1][0, 0]
        return self._known[length]

    def reaches(self, length: int) -> bool:
        """Whether the last query sees every key."""
        return bool(self._computed(length, 1, "ones", slice(length - 1, length))[1].all())

    def check(self, length: int) -> None:
        """That padding hides what is padded, and shows no more than there is without."""
        whole = self(length)
        for pattern in ("right", "left"):
            kept, seen = self._computed(length, 3, pattern)
            pairs = kept[:, None, :, None] & kept[:, None, None, :]
            if (seen != (whole & pairs)).any():
                raise ValueError("its mask hides other keys than those of a pattern and padding")

    def _computed(
        self, length: int, rows: int, pattern: str, queries: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """(which tokens are kept, which keys each query sees)."""
        program = self._program
        wished = {symbol: length if symbol == self._symbol else rows for symbol in program.symbols}
        sizes = {s: min(max(wished[s], low), high) for s, (low, high) in program.symbols.items()}
        arrays = feed(program, settled(program, sizes), pattern)
        values = hiding(self._attention)
        found: list[Any] = computed(program, [v.native for v in values], arrays) if values else []
        held = {value: tensor.numpy() for value, tensor in zip(values, found, strict=True)}
        if self._mask is not None:
            kept = self._mask[1].kept(arrays[self._mask[1].name])
        else:
            kept = np.ones((max((x.shape[0] for x in held.values() if x.ndim > 3), default=1), length), bool)
        seen = visible(self._attention, kept, held, queries)
        if seen is None:
            raise ValueError("more is added to its scores than masks")
        places = np.arange(length)[queries]
        if (seen[..., np.arange(len(places)), places] != kept[:, None, queries]).any():
            raise ValueError("a query does not see itself")
        if (seen != seen[:, :1]).any():
            raise ValueError("its heads see different keys")
        return kept, seen


def bounded(high: int) -> bool:
    """Whether a largest length is one that somebody gave."""
    return high < UNBOUNDED

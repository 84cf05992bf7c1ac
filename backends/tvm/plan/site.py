"""What every kernel's writer needs: the function being written, and what is asked of each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....ir.blocks.base import Norm as NormBlock
from ....ir.blocks.sight import Fixed
from ....ir.values import Value, sizes
from ..kernels.dot import product_of
from ..kernels.machine import Machine
from ..kernels.norm import finished
from ..kernels.rows import Finish, Norm
from ..kernels.tile import Tile
from .coded import CodedWeight
from .emitter import Emitter
from .integers import Integers, Rounding
from .items import Need
from .masks import TokenMasks

_KINDS = {"layer_norm": "layer", "rms_norm": "rms", "no_norm": "none"}


@dataclass
class Site:
    """tile: of a product, by k, n, dtype and rows. coded: weights of few bits that their own kernel runs, by
    their Linear's root; norm_before: norms that it computes first. needed: what is read, and in which form,
    before anything is written. notes: one sentence each for what no kernel fits."""

    emitter: Emitter
    machine: Machine
    masks: TokenMasks
    integers: Integers
    packed: bool
    tile: Callable[[int, int, str, int], Tile]
    coded: Mapping[Value, CodedWeight] = field(default_factory=dict)
    norm_before: Mapping[Value, NormBlock] = field(default_factory=dict)
    needed: set[Need] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    stored: dict[Value, tuple[Any, ...]] = field(default_factory=dict)
    tuples: dict[Any, Any] = field(default_factory=dict)
    words: dict[Fixed, Any] = field(default_factory=dict)

    def finish(
        self, root: Value, residual: bool = False, total: Value | None = None, norm: NormBlock | None = None
    ) -> Finish:
        """What a kernel does with the rows of `root`; total: their value before the norm."""
        rounding = self.rounding(root)
        floats = (root, "float") in self.needed or rounding is None
        stream = total is not None and bool({(total, "float"), (total, "stored")} & self.needed)
        return Finish(residual, stream, norm_of(norm), floats, rounding.mode if rounding else "no")

    def rounding(self, value: Value) -> Rounding | None:
        """How a value is rounded, where somebody reads it rounded."""
        return self.integers.rounding.get(value) if (value, "stored") in self.needed else None

    def arguments(
        self, finish: Finish, root: Value, residual: Any, norm: NormBlock | None, padded: int
    ) -> list[Any]:
        """The inputs of a finish, in a kernel's order."""
        found = [residual] if finish.residual else []
        if norm is not None:
            vectors = [v for v in (norm.weight, norm.bias) if v is not None]
            found += [self.emitter.constant(wide(vector(v), padded)) for v in vectors]
        if finish.rounds == "static":
            rounding = self.integers.rounding[root]
            fixed = np.array([1 / rounding.scale, rounding.zero], np.float32)
            found.append(self.emitter.constant(fixed))
        return found

    def results(self, finish: Finish, rows: Any, n: int) -> list[tuple[Any, str]]:
        """(shape, dtype) of the outputs of a finish, in a kernel's order."""
        found: list[tuple[Any, str]] = [((rows, n), "float32")] * (finish.stream + finish.floats)
        if finish.rounds != "no":
            found.append(((rows, n), product_of(finish.rounds, self.machine).dtype))
        if finish.rounds == "dynamic":
            found += [((rows,), "float32"), ((rows,), "int32")]
        return found

    def rounded(self, source: Value) -> tuple[Any, ...]:
        """The rows of a value as a product reads them rounded, rounded here if nowhere before."""
        if source not in self.stored:
            rounding = self.integers.rounding[source]
            n = sizes(source)[-1]
            finish = Finish(floats=False, rounds=rounding.mode)
            rows = self.emitter.rows(source)
            results = self.emitter.kernel(
                f"round_{n}", ("round", n, finish), lambda: finished(n, finish, self.machine),
                [rows, *self.arguments(finish, source, None, None, n)],
                self.results(finish, self.emitter.count(source), n),
            )  # fmt: skip
            self.put(finish, source, results)
        return self.stored[source]

    def to_tokens(self, source: Value) -> None:
        """From here on the rows of a value are the kept tokens, rounded ones too."""
        if not self.emitter.is_tokens(source):
            self.stored.pop(source, None)
            self.emitter.to_tokens(source)

    def put(self, finish: Finish, root: Value, results: Sequence[Any], total: Value | None = None) -> None:
        """Enter a kernel's outputs as the rows of its values."""
        left = list(results)
        if finish.stream:
            assert total is not None
            self.emitter.set_rows(total, left.pop(0))
        if finish.floats:
            self.emitter.set_rows(root, left.pop(0))
        if left:
            self.stored[root] = tuple(left)


def norm_of(norm: NormBlock | None) -> Norm | None:
    """What kernels know a norm as."""
    if norm is None:
        return None
    return Norm(_KINDS[norm.kind], norm.epsilon, norm.weight is not None, norm.bias is not None)  # type: ignore[arg-type]


def vector(value: Value) -> np.ndarray:
    """A parameter along the features."""
    data = value.const
    assert data is not None
    return data.reshape(-1).astype(np.float32)


def wide(array: np.ndarray, size: int) -> np.ndarray:
    """A vector with zeros behind it, up to a size."""
    return np.concatenate([array, np.zeros(size - len(array), array.dtype)])

"""Chains written as dense kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.blocks.base import Linear
from ..kernels.dense import Dense, dense
from ..kernels.dot import halved, panels, product_of
from ..kernels.rows import Finish
from ..kernels.tile import Tile, candidates
from .chains import Chain
from .coded import coded, weight_of
from .few_bits import write_few_bits
from .integers import stored_weight
from .items import Item, Need
from .site import Site, vector, wide

_SHORT = {"int8": "i8", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Matrix:
    """The weight of one or several Linears side by side: float32, int8 or bfloat16's bits [in, out]; scale:
    [out] in int8."""

    weight: np.ndarray
    bias: np.ndarray | None
    scale: np.ndarray | None

    def halved(self, columns: int) -> Matrix:
        """Two Linears of equal width, so that each panel of a tile has a stretch of both."""

        def side_by_side(array: np.ndarray) -> np.ndarray:
            first, second = np.split(array, 2, -1)
            return halved(first, second, columns)

        bias = None if self.bias is None else side_by_side(self.bias)
        scale = None if self.scale is None else side_by_side(self.scale)
        return Matrix(side_by_side(self.weight), bias, scale)


def write_chain(site: Site, chain: Chain) -> Item:
    """The item of a chain."""
    provides = (chain.root, chain.total) if chain.stream else (chain.root,)
    residual = [(chain.residual, "float")] if chain.residual is not None else []

    def write() -> None:
        em, linear = site.emitter, chain.linear
        source = need(site, linear)[0]
        if chain.residual is not None and em.is_tokens(chain.residual):
            site.to_tokens(source)
        if em.is_tokens(source):
            em.tokens.update(provides)
        residual = em.rows(chain.residual, like=source) if chain.residual is not None else None
        pair = [linear, *([chain.gate] if chain.gate else [])]
        halves = None if chain.halves is None else [np.arange(*half) for half in chain.halves]
        if linear.root in site.coded:
            gated = chain.gate is not None
            em.set_rows(chain.root, write_few_bits(site, pair, halves, chain.activation, gated, residual))
            return
        finish = site.finish(
            chain.root, residual is not None, chain.total if chain.stream else None, chain.norm
        )
        matrix = joined(site, pair, halves)
        n = linear.out_features if halves is None else len(halves[0])

        def more(padded: int) -> list[Any]:
            return site.arguments(finish, chain.root, residual, chain.norm, padded)

        # Nobody reads more of it than eight bits.
        integers = finish.rounds in ("dynamic", "static")
        rough = chain.activation == "gelu" and integers and not finish.floats
        activation = "gelu_rough" if rough else chain.activation
        results = write_dense(
            site, linear, matrix, n, finish, more, activation=activation, gated=chain.gate is not None
        )
        site.put(finish, chain.root, results, chain.total)

    return Item(provides, (need(site, chain.linear), *residual), write)  # type: ignore[arg-type]


def need(site: Site, linear: Linear) -> Need:
    """What a Linear reads."""
    product = site.integers.products.get(linear.root)
    norm = site.norm_before.get(linear.root)
    return (product.source, "stored") if product else (norm.input if norm else linear.input, "float")


def joined(site: Site, linears: Sequence[Linear], features: Sequence[np.ndarray] | None) -> Matrix:
    """Linears of one input as one, each with the output features that are asked for."""
    weights, biases, scales = [], [], []
    for number, linear in enumerate(linears):
        product = site.integers.products.get(linear.root)
        weights_of, scale = (product.weight, product.scale) if product else (matrix_of(linear), None)
        added = vector(linear.bias) if linear.bias is not None else np.zeros(linear.out_features, np.float32)
        chosen = slice(None) if features is None else features[number].reshape(-1)
        weights.append(weights_of[:, chosen])
        biases.append(added[chosen])
        scales += [scale[chosen]] if scale is not None else []
    bias = np.concatenate(biases) if any(linear.bias is not None for linear in linears) else None
    return Matrix(np.concatenate(weights, 1), bias, np.concatenate(scales) if scales else None)


def matrix_of(linear: Linear) -> np.ndarray:
    """A Linear's weight in float32, [in, out]."""
    data = linear.weight.const
    if data is not None:
        return np.asarray(data.T if linear.transposed else data, np.float32)
    codes = coded(linear)
    if codes is not None:
        return weight_of([codes]).decoded(codes.k)
    stored = stored_weight(linear)
    assert stored is not None, linear.weight
    return stored[0] * stored[1]


def write_dense(
    site: Site,
    linear: Linear,
    matrix: Matrix,
    n: int,
    finish: Finish,
    more: Any,
    activation: str | None = None,
    gated: bool = False,
) -> list[Any]:
    """A call of the dense kernel; its outputs.

    Args:
        more: padded columns -> the arguments of `finish`.
    """
    em, machine = site.emitter, site.machine
    product = site.integers.products.get(linear.root)
    source = product.source if product else linear.input
    bound, count = em.bound(source), em.count(source)
    k, own = matrix.weight.shape[0], product.dtype if product else "float32"
    tile = site.tile(k, 2 * n if gated else n, own, bound)
    if gated:  # both halves of a panel in whole vectors
        tiles = (tile, *candidates(2 * n, machine))
        tile = next(t for t in tiles if t.columns // machine.lanes % 2 == 0)
        matrix = matrix.halved(tile.columns)
    # Fewer rows leave registers idle, but every size of a build reads the same panels.
    tile = tile.for_rows(-(-bound // machine.threads))
    spec = Dense(
        k, n, product.rounding.mode if product else "float", matrix.bias is not None, activation, gated,
        finish,
        "columns" if bound < 2 * machine.threads and not finish.whole else "rows",
    )  # fmt: skip
    width = tile.columns // 2 if gated else tile.columns
    padded = -(-n // width) * width
    arguments = list(site.rounded(source)) if product else [em.rows(source)]
    arguments += [em.constant(a) for a in packed(matrix, tile, site, product)]
    arguments += more(padded)
    name = f"dense_{_SHORT[product.dtype] if product else 'f32'}_{k}x{n}"
    make = lambda: dense(spec, machine, tile)
    return em.kernel(name, ("dense", spec, tile), make, arguments, site.results(finish, count, n))


def packed(matrix: Matrix, tile: Tile, site: Site, product: Any) -> list[np.ndarray]:
    """The weights' arguments in the kernel's order."""
    n = matrix.weight.shape[1]
    size = -(-n // tile.columns) * tile.columns
    instruction = product_of(product.rounding.mode if product else "float", site.machine)
    if matrix.scale is None:
        found = [panels(matrix.weight, tile.columns, instruction.step)]
    else:
        sums = matrix.weight.astype(np.int64).sum(0).astype(np.int32)
        scale: np.ndarray = matrix.scale
        if product.rounding.mode == "static":
            # Sums start at what the zero point adds to them, and end in the product of both scales.
            sums = sums * np.int32(instruction.bias - product.rounding.zero)
            scale = scale * np.float32(product.rounding.scale)
        found = [panels(matrix.weight, tile.columns, instruction.step), wide(scale, size), wide(sums, size)]
    return found + ([wide(matrix.bias, size)] if matrix.bias is not None else [])

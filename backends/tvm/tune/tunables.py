"""The library's kernels as the search for tiles sees them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import tvm

from ...target import Target
from ..kernels.amx import BYTES, ROWS
from ..kernels.dense import Dense, Rows, dense
from ..kernels.dot import Dot, panels, product_of
from ..kernels.machine import Machine
from ..kernels.tile import Tile, amx_candidates, as_wide, candidates
from ..machine.bfloat16 import compiled
from ..machine.llvm_target import llvm_target
from .search import Timer, timer
from .tunable import Tunable, choose

Dtype = Literal["float32", "bfloat16", "int8"]
_ROWS: dict[str, Rows] = {"float32": "float", "bfloat16": "bfloat16", "int8": "dynamic"}


def _written(tile: Tile) -> dict[str, Any]:
    return {"rows": tile.rows, "columns": tile.columns} | ({"amx": True} if tile.amx else {})


def _tiles(shape: Sequence[int], dtype: str, target: Target) -> list[dict[str, Any]]:
    """Those of vectors, then those of AMX; of a named machine, where nothing is timed, AMX's are first for
    the many rows that it was made for."""
    vectors, tiles = _both(shape, dtype, target)
    many = target.name != "host" and shape[0] >= ROWS * target.cores
    return [_written(tile) for tile in (tiles + vectors if many else vectors + tiles)]


def _both(shape: Sequence[int], dtype: str, target: Target) -> tuple[list[Tile], list[Tile]]:
    rows, k, n = shape
    machine = Machine.of(target, target.cores)
    share = -(-rows // machine.threads)
    amx = machine.tiles != "no" and dtype != "float32" and k >= BYTES  # less leaves tiles half empty
    return candidates(n, machine, share), amx_candidates(n, share) if amx else []


def _rivals(shape: Sequence[int], dtype: str, target: Target) -> list[dict[str, Any]]:
    """The analytic choices of vectors and of AMX: which is faster, the instruction set doesn't tell."""
    return [_written(tiles[0]) for tiles in _both(shape, dtype, target) if tiles]


def _few(shape: Sequence[int], dtype: str, target: Target) -> list[dict[str, Any]]:
    rows, _, _, columns = shape
    machine = Machine.of(target, target.cores)
    tiles = as_wide(Tile(ROWS, columns, amx=True), machine, -(-rows // machine.threads))
    return [_written(tile) for tile in tiles]


def _build(shape: Sequence[int], dtype: str, target: Target, tile: dict[str, Any]) -> Timer:
    """A dense kernel with a bias on random numbers: float32, bfloat16, or rounded to int8 one by one."""
    rows, k, n, *_ = shape
    machine = Machine.of(target, target.cores)
    split: Literal["rows", "columns"] = "columns" if rows < 2 * machine.threads else "rows"
    spec = Dense(k, n, _ROWS[dtype], split=split)
    chosen = Tile(**tile)
    module = tvm.IRModule({"main": dense(spec, machine, chosen).with_attr("global_symbol", "main")})
    function = compiled(module, target=llvm_target(target, machine.threads))["main"]
    arrays = _arrays(rows, k, n, chosen, product_of(spec.x, machine), spec.integers)
    return timer(partial(function, *map(tvm.runtime.tensor, arrays)))


def _arrays(rows: int, k: int, n: int, tile: Tile, product: Dot, integers: bool) -> list[np.ndarray]:
    """The kernel's arguments in its order."""
    rng = np.random.default_rng(0)
    padded = -(-n // tile.columns) * tile.columns
    vector = lambda: rng.standard_normal(padded).astype(np.float32)
    if not integers:
        # The upper halves of floats are bfloat16.
        x: np.ndarray = rng.standard_normal((rows, k)).astype(np.float32)
        w: np.ndarray = rng.standard_normal((k, n)).astype(np.float32)
        if product.dtype == "uint16":
            x, w = ((each.view(np.uint32) >> 16).astype(np.uint16) for each in (x, w))
        given = [x, panels(w, tile.columns, product.step)]
    else:
        x = rng.integers(0, 120, (rows, k)).astype(product.dtype)
        w = rng.integers(-127, 128, (k, n)).astype(np.int8)
        scale, zero = np.full(rows, 0.01, np.float32), np.full(rows, 60, np.int32)
        sums = np.zeros(padded, np.int32)
        given = [x, scale, zero, panels(w, tile.columns, product.step), vector(), sums]
    return [*given, vector(), np.empty((rows, n), np.float32)]


DENSE = Tunable("dense", _tiles, _build, _rivals)
FEW = Tunable("few rows", _few, _build, _few)
"""The same product of fewer rows than its panels were packed for; their columns are the last of the shape."""


def dense_tile(most: int, k: int, n: int, dtype: Dtype, target: Target, rows: int = 0) -> Tile:
    """The tile for a product of [rows, k] with [k, n]: the one on record, else the analytic choice.

    Args:
        most: rows of the largest call, which decide the columns.
        target: its cores are the threads that share the rows.
        rows: of the calls that it is for; 0: as many.
    """
    tile = Tile(**choose(DENSE, (most, k, n), dtype, target))
    if tile.amx and 0 < rows < min(most, ROWS * target.cores):
        return Tile(**choose(FEW, (rows, k, n, tile.columns), dtype, target))
    return tile

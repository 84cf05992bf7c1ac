"""The register tile of a matrix product: how many rows and columns are accumulated at once, and where."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .amx import ROWS
from .machine import Machine


@dataclass(frozen=True)
class Tile:
    """rows x columns accumulators; columns is a multiple of the vector width. amx: in tile registers, where
    both are multiples of 16 that make up to four of them."""

    rows: int
    columns: int
    amx: bool = False

    def for_rows(self, rows: int) -> Tile:
        """One as wide, no higher than the rows that a thread has."""
        if self.amx:  # of 16 rows it has as many as there are
            return self if rows >= self.rows else replace(self, rows=ROWS)
        return replace(self, rows=max(1, min(self.rows, rows)))


def candidates(n: int, machine: Machine, rows: int = 0) -> list[Tile]:
    """Every tile worth timing for a product with n columns, the analytic choice first.

    A tile needs an accumulator a vector, one register a vector of weights and one for the broadcast input.
    Each step of k loads `vectors` vectors of weights, often from the second cache, and broadcasts a number a
    row for vectors * rows products: the choice has the cheapest loads a product, counting columns past n, and
    rows past those that a thread has, as wasted.

    Args:
        n: columns of the product.
        rows: how many a thread will have; 0: many.
    """
    found: list[tuple[float, int, Tile]] = []
    for vectors in range(1, 7):
        columns = vectors * machine.lanes
        height = min((machine.registers - 1 - vectors) // vectors, 14)
        height -= height % 2
        if height < 2 or (vectors > 1 and columns - machine.lanes >= n):
            continue
        wasted = -(-n // columns) * columns / n
        if rows:
            wasted *= -(-rows // height) * height / rows
        # Fewer than ten chains of products leave the multipliers waiting for each other.
        idle = max(1.0, 10 / (vectors * height))
        cost = wasted * idle * (1 + 0.5 * (1 / vectors + 3 / height))
        found.append((cost, -vectors, Tile(height, columns)))
    return [tile for _, _, tile in sorted(found, key=lambda entry: entry[:2])]


def as_wide(tile: Tile, machine: Machine, rows: int) -> list[Tile]:
    """Both tiles for a few rows a thread over the panels of one of AMX: of vectors, and its own."""
    vectors = tile.columns // machine.lanes
    height = max(min((machine.registers - 1 - vectors) // vectors, 14, rows), 1)
    return [Tile(height, tile.columns), replace(tile, rows=ROWS)]


def amx_candidates(n: int, rows: int = 0) -> list[Tile]:
    """Every tile of AMX worth timing, the analytic choice first: the one that loads least a product.

    Arguments are those of `candidates`.
    """
    sizes = [(16, 64), (16, 48), (16, 32), (16, 16)]
    if rows == 0 or rows >= 32:
        sizes = [(32, 32), (64, 16), (48, 16), (32, 16), *sizes]
    return [Tile(*size, amx=True) for size in sizes if size[1] - 16 < n or size[1] == 16]


def choose(n: int, machine: Machine, rows: int = 0) -> Tile:
    """The analytic choice."""
    return candidates(n, machine, rows)[0]

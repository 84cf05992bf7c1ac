"""The register tile of a matrix product: how many rows and columns are accumulated at once."""

from __future__ import annotations

from dataclasses import dataclass

from .machine import Machine


@dataclass(frozen=True)
class Tile:
    """rows x columns accumulators; columns is a multiple of the vector width."""

    rows: int
    columns: int


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


def choose(n: int, machine: Machine, rows: int = 0) -> Tile:
    """The analytic choice."""
    return candidates(n, machine, rows)[0]

"""Patterns of keys as blocks of keys that each block of queries is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Band:
    """The same blocks around each block of queries, at any length.

    size: places of a block. causal: none sees a later place. first: so many first places are seen by all and,
    unless causal, see all. before, behind: blocks on either side. tile: bool (size, (before + 1 + behind) *
    size), which of their keys each query of a block sees.
    """

    size: int
    causal: bool
    first: int
    before: int
    behind: int
    tile: np.ndarray

    @property
    def key(self) -> tuple:
        """Equal where bands are."""
        return (self.size, self.causal, self.first, self.before, self.behind, self.tile.tobytes())

    @property
    def ahead(self) -> int:
        """Blocks that hold the first places."""
        return -(-self.first // self.size)

    @property
    def most(self) -> int:
        """Blocks of keys of each block of queries."""
        return self.ahead + self.before + 1 + self.behind

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What its graph holds: the tile, behind one that shows all first places."""
        return {"tile": np.pad(self.tile, ((0, 0), (self.ahead * self.size, 0)), constant_values=True)}

    @property
    def keys(self) -> int:
        """That each query is computed with."""
        return self.most * self.size

    def covers(self, length: int) -> np.ndarray:
        """(queries, keys) bool."""
        size, blocks = self.size, -(-length // self.size)
        tiles = np.zeros((blocks, blocks, size, size), bool)
        for place, offset in enumerate(range(-self.before, self.behind + 1)):
            rows = np.arange(max(0, -offset), min(blocks, blocks - offset))
            tiles[rows, rows + offset] = self.tile[:, place * size : (place + 1) * size]
        found = tiles.transpose(0, 2, 1, 3).reshape(blocks * size, -1)[:length, :length]
        found[:, : self.first] = True
        if self.causal:
            return np.tril(found)
        found[: self.first] = True
        return found


@dataclass(frozen=True, eq=False)
class Table:
    """Blocks of keys by block of queries, up to a length.

    size: as of a Band. first: so many first places see all. blocks: int64 (blocks, most), those of keys by
    block of queries, filled up with any. kinds: int64 of that shape, numbers of tiles. tiles: bool (kinds,
    size, size), which keys each query sees.
    """

    size: int
    first: int
    blocks: np.ndarray
    kinds: np.ndarray
    tiles: np.ndarray

    @property
    def key(self) -> tuple:
        """Equal where tables are."""
        return (self.size, self.first, *(each.tobytes() for each in (self.blocks, self.kinds, self.tiles)))

    @property
    def most(self) -> int:
        """Blocks of keys of each block of queries."""
        return self.blocks.shape[1]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What its graph holds: blocks, the places in them, kinds and tiles."""
        places = self.blocks[..., None] * self.size + np.arange(self.size)
        return {
            "blocks": self.blocks,
            "places": places.reshape(len(self.blocks), -1),
            "kinds": self.kinds,
            "tiles": self.tiles,
        }

    @property
    def keys(self) -> int:
        """That each query is computed with."""
        return self.most * self.size


def banded(seen: np.ndarray, size: int) -> Band:
    """The band that covers what is seen at one length, or more than that."""
    causal = not np.triu(seen, 1).any()
    first = _first(seen, causal)
    rest = seen.copy()
    rest[:, :first] = False
    if not causal:
        rest[:first] = False
    tiles = _tiles(rest, size)
    rows, columns = np.nonzero(tiles.any((2, 3)))
    before, behind = (int(x.max(initial=0)) for x in (rows - columns, columns - rows))
    blocks = len(tiles)
    near = []
    for offset in range(-before, behind + 1):
        those = np.arange(max(0, -offset), min(blocks, blocks - offset))
        near.append(tiles[those, those + offset].any(0))
    return Band(size, causal, first, before, behind, np.concatenate(near, 1))


def tabled(seen: np.ndarray, size: int) -> Table:
    """The blocks that hold what is seen."""
    causal = not np.triu(seen, 1).any()
    first = 0 if causal else _first(seen, causal)
    rest = seen.copy()
    rest[:first] = False
    tiles = _tiles(rest, size)
    held = np.asarray(tiles.any((2, 3)))
    held[np.arange(len(tiles)), np.arange(len(tiles))] = True  # where first places are all
    most = int(held.sum(1).max())
    more = max(0, -(-first // size) - 1)  # so that a short text has all first places
    keys = np.zeros((len(tiles) + more, most), np.int64)
    rows, columns = np.nonzero(held)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(held.sum(1)) - held.sum(1), held.sum(1))
    keys[rows, places] = columns
    flat = tiles[rows, columns].reshape(len(rows), -1)
    kinds, number = np.unique(np.concatenate([np.zeros_like(flat[:1]), flat]), axis=0, return_inverse=True)
    numbers = np.full(keys.shape, number[0], np.int64)
    numbers[rows, places] = number[1:]
    return Table(size, first, keys, numbers, kinds.reshape(-1, size, size))


def _first(seen: np.ndarray, causal: bool) -> int:
    """How many first places are seen by all and see all."""
    full = np.tril(np.ones_like(seen)) if causal else np.ones_like(seen)
    whole = (seen == full).all(0)
    if not causal:
        whole &= (seen == full).all(1)
    return len(seen) if whole.all() else int(np.argmin(whole))


def _tiles(seen: np.ndarray, size: int) -> np.ndarray:
    """(blocks, blocks, size, size), of a matrix filled up to whole blocks."""
    more = -len(seen) % size
    whole = np.pad(seen, ((0, more), (0, more)))
    return whole.reshape(len(whole) // size, size, -1, size).transpose(0, 2, 1, 3)

"""What enters each use of a packed weight, and what it gives, on real feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.execute import observe
from ....ir.program import Program
from ...manager.contract import Feed
from .layer import ROWS
from .packed_uses import PackedUse


@dataclass(frozen=True)
class Seen:
    """x: (rows, in), or ids (rows,). y: (rows, out); (rows, 0) of a weight that is decoded whole. like: an x
    as it entered, for its axes and type."""

    x: np.ndarray
    y: np.ndarray
    like: np.ndarray | None


def watch(after: Program, uses: Sequence[PackedUse], feeds: Sequence[Feed], threads: int) -> list[Seen]:
    """What enters each use and what it gives, a row a token or an id, up to ROWS finite rows."""
    names = [[str(v.name) for v in (use.x, None if use.whole else use.y) if v is not None] for use in uses]
    taken: list[list[Seen]] = [[] for _ in uses]
    wanted = list(dict.fromkeys(name for each in names for name in each))
    for values in observe(after, wanted, feeds, threads) if wanted else ():
        for use, each, rows in zip(uses, names, taken, strict=True):
            if each and (left := ROWS - sum(len(one.x) for one in rows)) > 0:
                rows.append(_rows(use, *(values[name] for name in each), count=left))
    nothing = Seen(np.zeros((0, 0)), np.zeros((0, 0)), None)
    return [_joined(rows) if rows else nothing for rows in taken]


def _rows(use: PackedUse, like: np.ndarray, given: np.ndarray | None = None, *, count: int) -> Seen:
    x = np.moveaxis(like, 1, -1) if use.use.kind == "convolution" else like
    x = x.reshape(-1) if use.use.kind == "lookup" else x.reshape(-1, x.shape[-1])
    y = np.zeros((len(x), 0)) if given is None else given.reshape(-1, given.shape[-1])
    x, y = x[:count], y[:count]
    finite = np.isfinite(x if x.ndim > 1 else x[:, None]).all(axis=1) & np.isfinite(y).all(axis=1)
    return Seen(x[finite], y[finite], like)


def _joined(rows: Sequence[Seen]) -> Seen:
    x, y = (np.concatenate(parts) for parts in zip(*((one.x, one.y) for one in rows), strict=True))
    return Seen(x, y, rows[0].like)

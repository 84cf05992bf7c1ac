"""Feeds of ids before their tokens were numbered anew, as feeds of the new ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ir.program import Program
from ...manager.contract import Feed
from .token_ids import ROLES


class Translated(Sequence[Feed]):
    """Feeds, translated when one is asked for.

    Args:
        feeds: for the program before.
        program: which of its inputs are ids.
        kept: the old ids that stay, in ascending order: the new ids are their places.
        unknown: the old id that stands for those that went.
    """

    def __init__(self, feeds: Sequence[Feed], program: Program, kept: Sequence[int], unknown: int) -> None:
        self.feeds = feeds
        self.names = [spec.name for spec in program.inputs if spec.role in ROLES]
        self.kept = np.asarray(kept)
        self.unknown = int(np.searchsorted(self.kept, unknown))

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        feed = self.feeds[number]
        return {**feed, **{name: self._new(feed[name]) for name in self.names}}

    def _new(self, ids: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self.kept, ids).clip(max=len(self.kept) - 1)
        return np.where(self.kept[places] == ids, places, self.unknown).astype(ids.dtype)

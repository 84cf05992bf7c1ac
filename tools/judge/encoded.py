"""Rows of text as feeds of a program, in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ...passes.manager.contract import Feed
from .data import Row

BATCH = 32


class Encoder(Protocol):
    """Turns texts into a padded feed for the program."""

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Feed: ...

    def words(self, texts: Sequence[Sequence[str]]) -> tuple[Feed, list[list[int | None]]]:
        """A feed for texts that are split into words, and each token's word (None for special tokens)."""

    def token_id(self, token: str) -> int | None: ...


def batches(rows: Sequence[Row], encoder: Encoder, of: str = "text") -> Iterator[tuple[list[int], Feed]]:
    """(row numbers, feed) in batches of like length, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: (len(getattr(rows[i], of)), i))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        texts = [getattr(rows[i], of) for i in chosen]
        pairs = [rows[i].pair or "" for i in chosen]
        second = pairs if of == "text" and any(pairs) else None
        yield chosen, encoder(texts, second)

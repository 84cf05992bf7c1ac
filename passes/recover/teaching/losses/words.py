"""The words that tokens stand for, which two tokenizers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .....ir.errors import DataError
from .....ir.inputs.masks import real_tokens
from .....ir.program import Program
from ....manager.contract import Feed

if TYPE_CHECKING:
    from tokenizers import Encoding

Word = tuple[int, int, int]  # the segment of a text, and the characters of it: first, end


@dataclass(frozen=True)
class Side:
    """Of one program: the tokens, (batch, length) of which count, and the word that each stands for.

    places: (tokens,) of the flattened batch. words: (tokens,) numbers from 0 to `count`.
    """

    shape: tuple[int, int]
    places: torch.Tensor
    words: torch.Tensor
    count: int

    def means(self, value: torch.Tensor) -> torch.Tensor:
        """(words, width) of what has a vector for each token; anything else as it is."""
        if value.dim() != 3 or tuple(value.shape[:2]) != self.shape or not value.is_floating_point():
            return value
        tokens = value.flatten(0, 1)[self.places].float()
        sums = tokens.new_zeros(self.count, tokens.shape[1]).index_add(0, self.words, tokens)
        return sums / torch.bincount(self.words, minlength=self.count)[:, None]


def words(encoding: Encoding) -> list[Word]:
    """For each token its word; special tokens are numbered, in a segment of their own."""
    found: list[Word] = []
    special = 0
    for word, segment in zip(encoding.word_ids, encoding.sequence_ids, strict=True):
        if word is None or segment is None:
            found.append((-1, special, special))
            special += 1
        else:
            first, end = encoding.word_to_chars(word, segment) or (0, 0)
            found.append((segment, first, end))
    return found


def numbered(
    teachers: Sequence[Sequence[Word]], students: Sequence[Sequence[Word]]
) -> tuple[list[dict[Word, int]], int]:
    """For each row numbers of the words that both have, going on from row to row; and how many there are."""
    numbers: list[dict[Word, int]] = []
    count = 0
    for taught, own in zip(teachers, students, strict=True):
        common = set(taught)
        found = {name: None for name in own if name in common}
        numbers.append({name: count + place for place, name in enumerate(found)})
        count += len(found)
    return numbers, count


def side(
    program: Program,
    feed: Feed,
    encodings: Sequence[Encoding],
    named: Sequence[Sequence[Word]],
    numbers: Sequence[dict[Word, int]],
    count: int,
) -> Side:
    """One program's tokens of a feed, and their words.

    Args:
        named: the word of each token, by row. numbers: those of the words that count, of `count` in all.

    Raises:
        DataError: the feed's ids are not the text's.
    """
    ids = next(feed[spec.name] for spec in program.inputs if spec.role == "token_ids")
    masks = real_tokens(program.inputs, feed, "attention_mask").values()
    kept = next(iter(masks), np.ones(ids.shape, bool))
    places, taken = [], []
    for row, (encoding, own, number) in enumerate(zip(encodings, named, numbers, strict=True)):
        real = np.flatnonzero(kept[row]) if masks else np.arange(len(encoding))
        if not np.array_equal(ids[row][real], encoding.ids):
            raise DataError(
                "the ids of the data are not what the program's tokenizer makes of the texts beside them: "
                "make them by it"
            )
        for place, name in zip(real, own, strict=True):
            if name in number:
                places.append(row * ids.shape[1] + int(place))
                taken.append(number[name])
    shape = (int(ids.shape[0]), int(ids.shape[1]))
    return Side(shape, torch.tensor(places, dtype=torch.long), torch.tensor(taken, dtype=torch.long), count)

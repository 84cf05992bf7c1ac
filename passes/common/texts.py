"""Texts that stand beside the ids made of them, so that a program may read them by a tokenizer of its own.

A feed may hold what each of its rows was made from: `text`, and `pair` where rows have a second segment, both
(rows,) of strings. They are no inputs and go with their rows, as labels do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.errors import DataError, PassError
from ...ir.inputs.text import TextEncoder
from ...ir.program import Program
from ..manager.contract import Feed

TEXT, PAIR = "text", "pair"


def with_texts(feed: Feed, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Feed:
    """The feed, and what its rows were made from."""
    return {**feed, TEXT: np.array(texts), **({} if pairs is None else {PAIR: np.array(pairs)})}


def told(feed: Feed) -> tuple[list[str], list[str] | None]:
    """What a feed's rows were made from, and their second segments.

    Raises:
        DataError: the feed doesn't tell.
    """
    if TEXT not in feed:
        raise DataError(
            f"the data are ids alone, and these can't be read anew: give each feed the texts of its rows "
            f"as '{TEXT}' (and '{PAIR}'), or the run a file (--calibrate FILE)"
        )
    return [str(text) for text in feed[TEXT]], [str(p) for p in feed[PAIR]] if PAIR in feed else None


def reader(program: Program) -> TextEncoder:
    """The program's own tokenizer.

    Raises:
        PassError: it has none.
    """
    if "tokenizer.json" not in program.tokenizer:
        raise PassError("the model has no tokenizer.json to read texts with: put it beside the model")
    return TextEncoder(program.tokenizer["tokenizer.json"], program.inputs, program.info, program.symbols)


def read_alike(one: Program, other: Program) -> bool:
    """Whether ids mean the same to both. What has no tokenizer is taken to read as the other does."""
    files = [each.tokenizer.get("tokenizer.json") for each in (one, other)]
    if None in files or files[0] == files[1]:
        return True
    one_knows, other_knows = (reader(each).tokenizer.get_vocab() for each in (one, other))
    return one_knows == other_knows


class Reread(Sequence[Feed]):
    """Feeds read anew by a program's tokenizer when one is asked for. What was said of each row, such as its
    label, stays; what was said of each token goes.

    Raises:
        DataError: when one is asked for that doesn't tell its texts.
    """

    def __init__(self, feeds: Sequence[Feed], program: Program) -> None:
        self.feeds, self.read = feeds, reader(program)

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        feed = self.feeds[number]
        made = self.read(*told(feed))
        return {**{name: a for name, a in feed.items() if name not in made and a.ndim == 1}, **made}

"""prune-vocabulary: only the tokens that the user's texts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ...ir.program import Program
from ...ir.spec import InputSpec
from ..manager.contract import Context, Feed, Lossy, Pass, Result
from .vocabulary.tokenizer import Tokens


@dataclass(frozen=True)
class PruneVocabulary(Pass):
    """Remove the tokens that none of the user's texts uses.

            h = embedding(table[30522,768], ids)
        ->  h = embedding(table[8000,768], ids)          (ids of a tokenizer cut alike)

    The tables of words and the output projection lose their rows, and the tokenizer's files are rewritten:
    every text that used only kept tokens becomes the same tokens and the same outputs, to the last bit.
    Other words are split into smaller pieces that are kept, at worst into single characters, and cost
    quality. Scores over the vocabulary are those of the kept tokens. What is seen are the texts to calibrate
    and to train on: give all kinds that the model is to serve.

    times: how often a token must be seen to stay; from 2 on, texts that were seen change too.
    characters: "all" keeps every single character and byte of the vocabulary, so that any text can still be
        split; "seen" only those that stand in a kept token, so that others become the unknown token.
    """

    name: ClassVar[str] = "prune-vocabulary"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"times": (1, 2, 5)}

    times: int = 1
    characters: Literal["all", "seen"] = "all"

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}, and a token is seen 1 time or more")

    def run(self, program: Program, context: Context) -> Result:
        from ..common.texts import read_alike
        from .vocabulary.tables import cut, required
        from .vocabulary.token_ids import Translated

        tokens = Tokens(program.tokenizer)
        asked = required(program)
        known, rows, size = asked.ids, asked.rows, asked.bytes
        counts = _counts(program, (*context.calibration, *context.training), rows)
        seen = {int(number) for number in np.flatnonzero(counts >= self.times)}
        kept = sorted(tokens.needed(seen | known, self.characters == "all"))
        stay = sum(number < rows for number in kept)
        statistics: dict[str, int | float | str] = {
            "tokens": f"{stay} of {rows}",
            "tokens seen": len(seen),
            "ids read": int(counts.sum()),
            "MB of tables": f"{size * stay / rows / 1e6:.3g} of {size / 1e6:.3g}",
        }
        if stay == rows or not context.allow("prune the vocabulary"):
            return Result(program, False, statistics, ("every token is needed",) if stay == rows else ())
        files = tokens.rewritten(kept)
        pruned = replace(cut(program, kept), tokenizer=files)
        again = lambda feeds: Translated(feeds, program, kept, tokens.unknown) if feeds else ()
        original = context.original
        if original is not None and read_alike(original, program):  # else it reads texts by its own
            original = replace(cut(original.clone(), kept), tokenizer=files)
        following = replace(
            context,
            calibration=again(context.calibration),
            training=again(context.training),
            original=original,
        )
        note = (
            f"words of other tokens than these {stay} are split into smaller pieces, at worst into characters"
        )
        return Result(pruned, True, statistics, (note,), following)


def _counts(program: Program, feeds: Sequence[Feed], rows: int) -> np.ndarray:
    """How often each id stands in the feeds, padding left out where a mask tells it."""
    from .vocabulary.token_ids import ROLES

    masks: dict[str, InputSpec] = {spec.role: spec for spec in program.inputs}
    counts = np.zeros(rows, np.int64)
    for feed in feeds:
        for spec in program.inputs:
            if spec.role in ROLES:
                ids = feed[spec.name]
                mask = masks.get(spec.role.replace("token_ids", "attention_mask"))
                real = ids if mask is None else ids[mask.kept(feed[mask.name])]
                counts += np.bincount(real.reshape(-1), minlength=rows)
    return counts

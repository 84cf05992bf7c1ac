"""transfer-vocabulary: a smaller vocabulary, trained on the user's texts, in the place of the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ...ir.errors import DataError, PassError
from ...ir.program import Program
from ..manager.contract import Context, Feed, Lossy, Pass, Result
from .vocabulary.tokenizer import Tokens

if TYPE_CHECKING:
    import torch

MOST = 2000  # texts whose tokens are counted


@dataclass(frozen=True)
class TransferVocabulary(Pass):
    """Train a smaller tokenizer on the user's texts, and make the model's tables those of its tokens.

            h = embedding(table[30522,768], ids)
        ->  h = embedding(means[8000,768], ids)          (ids of a tokenizer trained anew)

    Every token starts as the mean of the old tokens that the old tokenizer splits it into (Fast Vocabulary
    Transfer: Gee et al., 2022, arXiv:2402.09977, section 3.1), in the output projection too: scores over the
    vocabulary are those of the new tokens. Special and added tokens keep their rows, and normalizer,
    pre-tokenizer and what stands behind the model are the old tokenizer's. `prune-vocabulary` keeps old
    tokens; here rare words fall into fewer pieces for the same rows, and what the model knew of long tokens
    has to be learned: `distill{embeddings=true}` behind it teaches by the captured model, which goes on
    reading the same texts by its own tokenizer (Zhao et al., 2019, arXiv:1909.11687, section 3.1).

    The texts are those to train on, or else to calibrate on, which must stand beside the ids: give all kinds
    that the model is to serve. Texts get more tokens, which notes tell: calls take as much longer.

    size: tokens of the new vocabulary, at most; texts that say little give fewer.
    characters: "seen" has the single characters that the texts have, "all" those of the old vocabulary too;
        others become the unknown token.
    """

    name: ClassVar[str] = "transfer-vocabulary"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    size: int = 8000
    characters: Literal["all", "seen"] = "seen"

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}, and a vocabulary has 1 token or more")

    def run(self, program: Program, context: Context) -> Result:
        from ..common.texts import Reread
        from .vocabulary.files import pieces
        from .vocabulary.splits import splits
        from .vocabulary.tables import over, required
        from .vocabulary.trained import trained

        tokens = Tokens(program.tokenizer)
        asked = required(program)
        if asked.ordered:
            raise PassError(f"{asked.ordered[0]} goes by the order of token ids, which new ones don't keep")
        if self.size > asked.rows:
            raise PassError(f"size is {self.size}, and the vocabulary has {asked.rows} tokens: give fewer")
        texts = _texts(context.training or context.calibration)
        names = {number: token for token, number in tokens.ids.items()}
        stay = sorted(tokens.fixed | tokens.spelled | asked.ids)
        for number in stay:
            if number not in names:
                raise PassError(
                    f"the model knows the id {number} by itself, which no token of its tokenizer has"
                )
        cores = {core for token in tokens.vocabulary if len(core := tokens.core(token)) == 1}
        more = cores if self.characters == "all" else ()
        model = trained(tokens, texts, self.size, [names[number] for number in stay], more)
        if not context.allow("transfer the vocabulary"):
            return Result(program, False)
        made = pieces(model)
        rows = _Means(splits(tokens, sorted(made, key=made.__getitem__)))
        changed = over(program, {number: made[names[number]] for number in stay}, rows)
        changed = replace(changed, tokenizer=tokens.remodelled(model))
        before, after = (_tokens(one, texts) for one in (program, changed))
        statistics: dict[str, int | float | str] = {
            "tokens": f"{len(made)} of {asked.rows}",
            "tokens kept": sum(name in tokens.ids for name in made),
            "MB of tables": f"{asked.bytes * len(made) / asked.rows / 1e6:.3g} of {asked.bytes / 1e6:.3g}",
            "tokens a text": f"{after:.1f}, before {before:.1f}",
        }
        notes = [f"texts have {after / before:.2f} times the tokens, and calls take as much longer"]
        if len(made) < self.size:
            notes.append(
                f"the texts give {len(made)} tokens and not {self.size}: what they have once is no piece"
            )
        following = replace(
            context,
            calibration=Reread(context.calibration, changed),
            training=Reread(context.training, changed) if context.training else (),
        )
        return Result(changed, True, statistics, tuple(notes), following)


def _texts(feeds: Sequence[Feed]) -> list[str]:
    """What the rows of all feeds were made from.

    Raises:
        DataError: the feeds don't tell, or every text is empty.
    """
    from ..common.texts import told

    found = [text for feed in feeds for side in told(feed) for text in side or () if text.strip()]
    if not found:
        raise DataError("every text of the data is empty: give some to train a tokenizer on")
    return found


def _tokens(program: Program, texts: Sequence[str]) -> float:
    """How many tokens a text has, over some of them."""
    from ..common.texts import reader

    return float(np.mean([len(each) for each in reader(program).tokenize(texts[:: -(-len(texts) // MOST)])]))


class _Means:
    """The mean of old rows for each new one.

    Args:
        rows: old ids of each new token.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows

    def __call__(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        import torch

        table = tensor.movedim(axis, 0)
        flat = torch.tensor([number for each in self.rows for number in each])
        starts = torch.tensor(np.cumsum([0, *map(len, self.rows[:-1])]))
        means = torch.nn.functional.embedding_bag(
            flat, table.reshape(len(table), -1).contiguous(), starts, mode="mean"
        )
        return means.reshape(-1, *table.shape[1:]).movedim(0, axis).contiguous()

"""What a graph's inputs accept, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Role = Literal[
    "token_ids", "attention_mask", "token_type_ids", "position_ids", "decoder_token_ids",
    "decoder_attention_mask", "mask", "pixel_values", "audio_features", "hidden", "cache_flag", "memory",
    "other",
]  # fmt: skip
MASKS: tuple[Role, ...] = ("decoder_attention_mask", "attention_mask")
"""Roles of the masks of tokens, (batch, length), that of the outputs' tokens first. A "mask" hides anything
else: keys from each query, spans, whole rows."""

IDS: tuple[Role, ...] = ("token_ids", "decoder_token_ids")
"""Roles of the ids of tokens, (batch, length)."""

UNBOUNDED = 2**31 - 1
"""The largest value of a symbol that nothing bounds."""


@dataclass(frozen=True)
class InputSpec:
    """What one graph input accepts, and what is known of its values.

    shape: integers, or symbol names shared between inputs ("batch", "length").
    low, high: for ids, the inclusive and the exclusive bound (vocabulary, type vocabulary or position table
        size, less what the graph adds before it looks an id up). low of a "mask": how many keys each query
        must see at least.
    follows: the size, or the symbol of it, that values count or index: lengths, positions of tokens. They
        are at least `low` and below the size + `reach`. indexes: others are read past the axis' end.
    seen: least and greatest value in the examples that came with the model, of integers.
    hidden: what a mask holds where it hides: 0, 1, or a number to be added to scores. What a "cache_flag"
        holds where the cache, whose length it follows, is empty: 0 or 1.
    given_by: of a "memory", the output that the next call takes for it. One that is all zeros is empty, and
        so is one that a call leaves out.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    role: Role = "other"
    high: int | None = None
    low: int = 0
    follows: int | str | None = None
    reach: int = 0
    indexes: bool = False
    seen: tuple[int, int] | None = None
    hidden: float = 0
    given_by: str = ""

    def kept(self, mask: np.ndarray) -> np.ndarray:
        """Of an array for this input, a mask: True where it hides nothing."""
        return mask == 0 if self.hidden else mask != 0

    def masking(self, kept: np.ndarray) -> np.ndarray:
        """An array for this input, a mask, from booleans that say what is not hidden."""
        import numpy as np

        return np.where(kept, 0 if self.hidden else 1, self.hidden).astype(numpy_dtype(self.dtype))


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name, bfloat16 included."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)

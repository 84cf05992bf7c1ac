"""Program: a graph in one of two dialects, with what it takes to feed, test and ship it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Dialect = Literal["fx", "onnx"]
Task = Literal[
    "embedding",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "masked-lm",
    "causal-lm",
    "features",
]
Role = Literal[
    "token_ids", "attention_mask", "token_type_ids", "position_ids", "decoder_token_ids",
    "decoder_attention_mask", "mask", "pixel_values", "audio_features", "hidden", "cache_flag", "other",
]  # fmt: skip
MASKS: tuple[Role, ...] = ("decoder_attention_mask", "attention_mask")
"""Roles of the masks of tokens, (batch, length), that of the outputs' tokens first. A "mask" hides anything
else: keys from each query, spans, whole rows."""

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


@dataclass(frozen=True)
class Program:
    """A graph and its surroundings. Passes receive a clone and may edit `graph` in place.

    graph: torch.fx.GraphModule ("fx", ATen ops of a torch.export program) or onnx_ir.Model ("onnx").
    inputs: in call order. outputs: names, in order.
    symbols: inclusive (smallest, largest) value of every symbol in the input shapes.
    tokenizer: file name -> content of the tokenizer's files ("tokenizer.json", ...), empty if none.
    info: JSON-able facts: source, max_length, pad_token_id, labels, causal, similarity, ...
    feeds: what was seen to enter a program that is the body of a loop or a branch: its probes.
    """

    graph: Any
    dialect: Dialect
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    task: Task = "features"
    symbols: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tokenizer: Mapping[str, bytes] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    feeds: Sequence[Mapping[str, np.ndarray]] = ()

    def __repr__(self) -> str:
        """Without the graph, whose code would fill a screen."""
        takes = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in self.inputs)
        return f"Program({self.dialect}, {self.task}: {takes} -> {', '.join(self.outputs)})"

    def clone(self) -> Program:
        """A program whose graph may be edited without touching this one; weights are shared."""
        if self.dialect == "onnx":
            from .onnx import graph as onnx

            return replace(self, graph=onnx.clone(self.graph))
        from .fx import graph as fx

        return replace(self, graph=fx.clone(self.graph))

    def fingerprint(self) -> str:
        """Hex digest over the structure and every weight: equal exactly when the programs are equal."""
        from .fingerprint import fingerprint

        return fingerprint(self)

    def with_graph(self, graph: Any, dialect: Dialect | None = None) -> Program:
        """The same surroundings around another graph."""
        return replace(self, graph=graph, dialect=dialect or self.dialect)

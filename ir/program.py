"""Program: a graph in one of two dialects, with what it takes to feed, test and ship it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from .spec import InputSpec

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
        from .fingerprint import digest, graph_lines

        return digest([*self._surroundings(), *graph_lines(self.graph, self.dialect)])

    def _surroundings(self) -> Iterator[str]:
        yield f"{self.dialect} {self.task} {self.outputs}"
        for spec in self.inputs:
            yield repr(astuple(spec))
        yield repr(sorted(self.symbols.items()))
        for name, content in sorted(self.tokenizer.items()):
            yield f"{name} {hashlib.blake2b(content, digest_size=16).hexdigest()}"
        yield json.dumps(dict(self.info), sort_keys=True, default=repr)

    def with_graph(self, graph: Any, dialect: Dialect | None = None) -> Program:
        """The same surroundings around another graph."""
        return replace(self, graph=graph, dialect=dialect or self.dialect)

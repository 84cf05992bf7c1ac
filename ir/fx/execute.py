"""PyTorch's half of `execute`: FX graphs, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..spec import InputSpec


def execute_fx(
    graph: torch.fx.GraphModule,
    inputs: Sequence[InputSpec],
    outputs: Sequence[str],
    feeds: Iterable[Mapping[str, np.ndarray]],
) -> list[dict[str, np.ndarray]]:
    """The outputs by name for each feed."""
    results = []
    with torch.no_grad():
        for feed in feeds:
            found = torch.fx.Interpreter(graph).run(*_arguments(inputs, feed), enable_io_processing=False)
            flat = [found] if isinstance(found, torch.Tensor) else torch.utils._pytree.tree_leaves(found)
            results.append({name: _array(t) for name, t in zip(outputs, flat, strict=True)})
    return results


def observe_fx(
    graph: torch.fx.GraphModule,
    inputs: Sequence[InputSpec],
    names: Sequence[str],
    feeds: Iterable[Mapping[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
    """The values of named nodes for each feed."""
    for feed in feeds:
        observer = _Observer(graph, set(names))
        with torch.no_grad():
            observer.run(*_arguments(inputs, feed), enable_io_processing=False)
        yield observer.found


class _Observer(torch.fx.Interpreter):
    """Keeps what named nodes give."""

    def __init__(self, graph: torch.fx.GraphModule, names: set[str]) -> None:
        super().__init__(graph)
        self.names, self.found = names, dict[str, np.ndarray]()

    def run_node(self, node: torch.fx.Node) -> Any:
        result = super().run_node(node)
        if node.name in self.names:
            self.found[node.name] = _array(result)
        return result


def _arguments(inputs: Sequence[InputSpec], feed: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(feed[spec.name])) for spec in inputs]


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array

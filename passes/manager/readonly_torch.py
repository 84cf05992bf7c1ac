"""PyTorch's half of `readonly`: in-place operators on shared weights are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class SharedWeights(TorchDispatchMode):
    """Raises RuntimeError when an operator would write into the memory of one of `tensors`."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.memory = {_memory(tensor) for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for position, argument in enumerate(func._schema.arguments):
                if argument.alias_info is None or not argument.alias_info.is_write:
                    continue
                given = args[position] if position < len(args) else kwargs.get(argument.name)
                for tensor in tree_leaves(given):
                    if type(tensor) in (torch.Tensor, torch.nn.Parameter) and _memory(tensor) in self.memory:
                        raise RuntimeError(
                            f"{func} would write into a weight shared with the program before it; "
                            "make a new tensor instead"
                        )
        return func(*args, **kwargs)


@contextmanager
def restored(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Give each parameter its own data back afterwards; raises RuntimeError if `.data = ...` replaced it."""
    known = [(tensor, tensor.data, tensor.requires_grad) for tensor in tensors]
    try:
        yield
    finally:
        moved = [
            (t, data, grad)
            for t, data, grad in known
            if _memory(t) != _memory(data) or t.requires_grad != grad
        ]
        for tensor, data, requires_grad in moved:
            tensor.data = data
            tensor.requires_grad_(requires_grad)
    if moved:
        raise RuntimeError(
            "the pass changed a Parameter shared with the program before it; put a new Parameter in its place"
        )


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata

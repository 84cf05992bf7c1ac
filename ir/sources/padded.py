"""Images that a model pads to its windows: free sizes of them make shapes that torch.export reasons about for
minutes, to find in the end that it can't (Swin)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._sympy.functions import Mod, PythonMod

from ..errors import CaptureError

_IMAGE = 4  # axes


class _Watch(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() >= _IMAGE:
            axes: tuple[Any, ...] = tuple(result.shape)
            sizes = [size.node.expr for size in axes if isinstance(size, torch.SymInt)]
            if sum(bool(size.atoms(Mod, PythonMod)) for size in sizes) > 1:
                raise CaptureError("the model pads images by their size.")
        return result


@contextmanager
def no_padded_windows() -> Iterator[None]:
    """Ends a trace at the first value two of whose axes are padded by their own size.

    Raises:
        CaptureError: there is one.
    """
    with _Watch():
        yield

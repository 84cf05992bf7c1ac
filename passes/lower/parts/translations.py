"""What torch's exporter writes of operators that it has no spelling of, or another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import grouped, rounding

aten = torch.ops.aten


def translations() -> dict[Any, Callable[..., Any]]:
    """As torch.onnx.export takes them: operator -> onnxscript function.

    A reshape that was not decomposed (an axis of 0 is one, no copy), a stable sort (TopK puts equals in their
    order: ONNX, TopK-11), products by group and the operators of integers.
    """
    from onnxscript.function_libs.torch_lib.ops.core import aten_sort, aten_view

    def sort(self: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
        return aten_sort(self, dim, descending)

    own = {aten.reshape.default: aten_view, aten.sort.stable: sort}
    return own | grouped.translations() | rounding.translations()

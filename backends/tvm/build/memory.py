"""One working memory for all buckets: their planned storages get sizes in common, so the pool that frees them
after one bucket's call has them ready for the next one's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import tvm
from tvm import relax

from .bindings import called, edited

_STORAGE = "relax.memory.alloc_storage"


@tvm.transform.module_pass(opt_level=0)
class SharedStorage:
    """Rounds the n-th largest storage of every function up to that of the function that needs most.

    TVM plans each function's memory by itself and keeps freed storages by size, for ever: five buckets would
    hold five working memories. Pages that a small bucket does not touch cost it nothing.
    """

    def transform_module(self, module: Any, _: Any) -> Any:
        module = module.clone()
        functions = {
            variable: function
            for variable, function in module.functions_items()
            if isinstance(function, relax.Function)
        }
        ranked = {
            variable: sorted(_sizes(function), reverse=True) for variable, function in functions.items()
        }
        most = max(map(len, ranked.values()), default=0)
        common = [
            max((sizes[n] for sizes in ranked.values() if n < len(sizes)), default=0) for n in range(most)
        ]
        for variable, function in functions.items():
            left: dict[int, list[int]] = {}
            for size, wider in zip(ranked[variable], common, strict=False):
                left.setdefault(size, []).append(wider)
            module.update_func(variable, edited(function, partial(_resized, left)))
        return module


def _sizes(function: Any) -> list[int]:
    found = []
    for block in function.body.blocks:
        found += [_size(binding.value) for binding in block.bindings if called(binding.value) == _STORAGE]
    return [size for size in found if size]


def _size(value: Any) -> int:
    """Bytes of an allocated storage; 0 where it depends on a symbol."""
    shape = value.args[0]
    bytes_ = shape.values[0] if isinstance(shape, relax.ShapeExpr) else None
    return int(bytes_) if isinstance(bytes_, tvm.tirx.IntImm) else 0


def _resized(left: Mapping[int, list[int]], value: Any) -> Any:
    if called(value) != _STORAGE or not _size(value):
        return value
    wider = relax.ShapeExpr([left[_size(value)].pop(0)])
    return tvm.ir.Call(value.op, [wider, *value.args[1:]], value.attrs, value.ty_args, value.span)

"""One module of many: a function a bucket, kernels shared, and weights as parameters, equal ones once."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import PyExprMutator, expr_functor

LEAST = 1024  # bytes; smaller constants stay in the module


class Weights:
    """arrays: every constant added so far, by name, in order of first use."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, constant: Any) -> str | None:
        """The name of a tvm constant's value; None for one that is too small to be worth a parameter."""
        array = constant.value.numpy()
        if array.nbytes < LEAST:
            return None
        digest = hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data, digest_size=16).digest()
        name = self._names.setdefault((array.dtype.name, array.shape, digest), f"w{len(self.arrays)}")
        self.arrays.setdefault(name, array)
        return name


class Joined:
    """module: everything added so far. weights: what its functions take after their inputs."""

    def __init__(self) -> None:
        self.module = tvm.IRModule()
        self.weights = Weights()
        self._kernels: dict[int, list[tuple[Any, Any]]] = {}  # by structural hash: (function, its name)
        self._taken: set[str] = set()

    def add(self, module: Any, name: str) -> tuple[str, ...]:
        """Adds "main" of a lowered module as `name`, with the kernels that it calls.

        Returns:
            The names of the weights that the function takes, in their order behind its inputs.
        """
        kernels = {
            variable: self._kernel(variable, function)
            for variable, function in module.functions_items()
            if isinstance(function, tvm.tirx.PrimFunc)
        }
        function = module["main"]
        lifted = _Lifted(self.weights, kernels)
        body = lifted.visit_expr(function.body)
        parameters = [*function.params, *lifted.parameters.values()]
        attributes = function.attrs or tvm.ir.DictAttrs({})
        made = relax.Function(parameters, body, function.ret_ty, function.is_pure, attributes)
        self.module[name] = made.with_attr("global_symbol", name)
        return tuple(lifted.parameters)

    def _kernel(self, variable: Any, function: Any) -> Any:
        """The name in the joined module of this function, or of one that is equal to it."""
        function = function.without_attr("global_symbol")
        same = self._kernels.setdefault(tvm_ffi.structural_hash(function), [])
        for known, name in same:
            if tvm_ffi.structural_equal(known, function):
                return name
        free = variable.name_hint
        while free in self._taken:
            free = f"{variable.name_hint}_{len(self._taken)}"
        self._taken.add(free)
        name = tvm.ir.GlobalVar(free)
        relax.expr._update_type(name, variable.ty)
        self.module[name] = function
        same.append((function, name))
        return name


@expr_functor.mutator
class _Lifted(PyExprMutator):
    """A function's body with large constants as parameters, calling the joined module's kernels."""

    def __init__(self, weights: Weights, kernels: dict[Any, Any]) -> None:
        super().__init__()
        self.weights = weights
        self.kernels = kernels
        self.parameters: dict[str, Any] = {}

    def visit_generic_const_(self, op: Any) -> Any:
        name = self.weights.add(op)
        if name is None:
            return op
        return self.parameters.setdefault(name, relax.Var(name, op.ty))

    def visit_global_var_(self, op: Any) -> Any:
        return self.kernels.get(op, op)

"""Complex numbers as pairs of real ones: rotations by torch.view_as_complex in operators that runtimes have.

A complex tensor becomes one with a last axis of 2, real and imaginary part, as torch.view_as_real gives it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule, Node

from .graph import add_tensor, attribute, call, clone, prune
from .operators import packet

_A = torch.ops.aten
_SAME = {"clone", "contiguous", "detach", "alias", "lift_fresh_copy", "_to_copy", "to"}
_LAYOUT = {"unsqueeze", "squeeze", "select", "slice", "transpose", "flatten", "unflatten", "movedim"}
_MORE = {"reshape": 2, "view": 2, "_unsafe_view": 2, "expand": -1, "repeat": 1}  # the last axis's entry


class _UnknownError(Exception):
    pass


def in_reals(gm: GraphModule) -> GraphModule:
    """A graph without complex values that computes the same; the graph itself where it has none, or has
    operators on them that are not known here."""
    if not any(_complex(node) for node in gm.graph.nodes):
        return gm
    twin = clone(gm)
    try:
        _Pairs(twin).rewrite()
    except _UnknownError:
        return gm
    prune(twin)
    return twin


def _complex(node: Node) -> bool:
    dtype = getattr(node.meta.get("val"), "dtype", None)
    return dtype is not None and dtype.is_complex


class _Pairs:
    """Rewrites a graph in place. pairs: complex node -> its real one."""

    def __init__(self, gm: GraphModule) -> None:
        self.gm, self.pairs = gm, dict[Node, Node]()

    def rewrite(self) -> None:
        for node in list(self.gm.graph.nodes):
            if node.op == "output" and any(_complex(n) for n in node.all_input_nodes):
                raise _UnknownError
            if not _complex(node) and not any(_complex(n) for n in node.all_input_nodes):
                continue
            if node.op == "get_attr":
                pair = torch.view_as_real(
                    attribute(self.gm, str(node.target)).detach().resolve_conj()
                ).contiguous()
                self.pairs[node] = add_tensor(self.gm, f"{node.target}_real", pair, node)
            elif node.op == "call_function":
                made = self._made(node)
                if _complex(node):
                    self.pairs[node] = made
                else:
                    node.replace_all_uses_with(made)
            else:
                raise _UnknownError
        self.gm.recompile()

    def _made(self, node: Node) -> Node:
        """What computes the same: the pair of a complex node, the value of a real one."""
        name = packet(node).removeprefix("aten.")
        add: Any = partial(call, self.gm.graph, before=node)
        args: list[Any]
        args, last = list(node.args), len(node.meta["val"].shape) if _complex(node) else 0
        first: Any = self.pairs.get(args[0], args[0]) if args and isinstance(args[0], Node) else None
        if (
            name == "view_as_complex"
            or name == "view_as_real"
            or (name in _SAME and _complex(node) and _complex(args[0]))
        ):
            return first
        if name in ("polar", "complex"):
            return self._polar(add, *args) if name == "polar" else add(_A.stack.default, args, -1)
        if name in ("real", "imag"):
            return add(_A.select.int, first, -1, int(name == "imag"))
        if name in ("mul", "add", "sub", "div"):
            return self._arithmetic(add, name, args)
        if name in ("conj", "_conj", "conj_physical", "_conj_physical", "exp", "abs"):
            real, imaginary = (add(_A.select.int, first, -1, i) for i in (0, 1))
            if name == "exp":
                return self._polar(add, add(_A.exp.default, real), imaginary)
            if name == "abs":
                return add(
                    _A.sqrt.default,
                    add(
                        _A.add.Tensor,
                        add(_A.mul.Tensor, real, real),
                        add(_A.mul.Tensor, imaginary, imaginary),
                    ),
                )
            return add(_A.stack.default, [real, add(_A.neg.default, imaginary)], -1)
        if name == "sym_size":
            return add(node.target, first, args[1] - 1 if args[1] < 0 else args[1])
        if name == "permute":
            order = [d % last for d in args[1]]
            return add(node.target, first, [*order, last])
        if name in _MORE:
            return add(node.target, first, [*args[1], _MORE[name]])
        if name in ("cat", "stack"):
            dim = args[1] if len(args) > 1 else 0
            return add(node.target, [self._pair(add, part) for part in args[0]], dim - 1 if dim < 0 else dim)
        if name == "index":
            return add(node.target, first, args[1])
        if name in _LAYOUT:
            dims = {"transpose": 2, "flatten": 2, "movedim": 2}.get(name, 1)
            if len(args) < 1 + dims and name in ("squeeze", "flatten"):
                raise _UnknownError
            moved = [d - 1 if isinstance(d, int) and d < 0 else d for d in args[1 : 1 + dims]]
            return add(node.target, first, *moved, *args[1 + dims :], **node.kwargs)
        raise _UnknownError

    def _polar(self, add: Any, size: Any, angle: Node) -> Node:
        parts = [add(_A.mul.Tensor, size, add(turn, angle)) for turn in (_A.cos.default, _A.sin.default)]
        return add(_A.stack.default, parts, -1)

    def _pair(self, add: Any, value: Any) -> Node:
        """The pair of a value, a real one's with zeros."""
        if value in self.pairs:
            return self.pairs[value]
        return add(_A.stack.default, [value, add(_A.zeros_like.default, value)], -1)

    def _arithmetic(self, add: Any, name: str, args: list[Any]) -> Node:
        a, b = args[:2]
        if len(args) > 2:
            raise _UnknownError
        whole: Any = getattr(_A, name).Tensor
        if isinstance(b, complex) or isinstance(a, complex):
            number, other = (a, b) if isinstance(a, complex) else (b, a)
            if name != "mul" or not isinstance(other, Node) or other in self.pairs:
                raise _UnknownError
            return add(_A.stack.default, [add(whole, other, part) for part in (number.real, number.imag)], -1)
        if name in ("add", "sub"):
            return add(whole, *(self._pair(add, each) if isinstance(each, Node) else each for each in (a, b)))
        if a in self.pairs and b in self.pairs:
            if name == "div":
                raise _UnknownError
            (ar, ai), (br, bi) = ([add(_A.select.int, self.pairs[x], -1, i) for i in (0, 1)] for x in (a, b))
            real = add(_A.sub.Tensor, add(whole, ar, br), add(whole, ai, bi))
            return add(
                _A.stack.default, [real, add(_A.add.Tensor, add(whole, ar, bi), add(whole, ai, br))], -1
            )
        if b not in self.pairs:
            return add(whole, self.pairs[a], add(_A.unsqueeze.default, b, -1) if isinstance(b, Node) else b)
        if name == "div":
            raise _UnknownError
        return add(whole, add(_A.unsqueeze.default, a, -1) if isinstance(a, Node) else a, self.pairs[b])

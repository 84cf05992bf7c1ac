"""Where a model's weights and its time are: parameters, multiply-adds, bytes, milliseconds of each block."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..ir.blocks import recognise
from ..ir.blocks.base import Blocks
from ..ir.blocks.walk import Statics
from ..ir.execute import observe
from ..ir.program import Program
from ..ir.values import GraphView, Value
from ..ir.view import view

Place = tuple[str, int]  # which block of which kind: ("attention", 0)
Shape = tuple[Any, ...]
OTHER, HEAD = ("other", 0), ("head", 0)
PRODUCTS: Mapping[str, Callable[[Shape, list[Shape], Mapping[str, Any]], int]] = {
    **dict.fromkeys(
        ("matmul", "linear", "matmul_integer", "com.microsoft::MatMulNBits", "aten._grouped_mm.default",
         "transformers.grouped_mm_fallback.default", "graphwright.grouped_mm.default"),
        lambda out, operands, attrs: prod(out) * operands[0][-1],
    ),
    **dict.fromkeys(
        ("conv1d", "conv2d"), lambda out, operands, attrs: prod(out) * prod(operands[1][1:])
    ),
    **dict.fromkeys(
        ("sdpa", "ai.onnx::Attention", "com.microsoft::MultiHeadAttention"),
        lambda out, operands, attrs: (prod(operands[0]) + prod(out)) * operands[1][-2],
    ),
    "einsum": lambda out, operands, attrs: _einsum(attrs["equation"], operands),
}  # fmt: skip
"""Multiply-adds of an operator, from the sizes of its result and of its operands."""


@dataclass(frozen=True)
class Part:
    """A block, or what is in none.

    kind: attention, feed_forward, experts, norm, embedding, head (what follows the last block), other.
    node: the value it gives. total: numbers in the float constants that it reads. unique: those of them that
    no part before reads. bytes: of all its constants that no part before reads. multiply_adds: of its
    products, in one call. ms: of its kernels in ONNX Runtime; None where nothing was timed.
    """

    kind: str
    node: str
    unique: int
    total: int
    bytes: int
    multiply_adds: int
    ms: float | None


def parts(program: Program, feed: Mapping[str, np.ndarray], threads: int | None) -> list[Part]:
    """The blocks of a program in order, then the head and the rest.

    Args:
        feed: the call whose multiply-adds and time are told.
        threads: that it is timed with; None leaves the clock out.
    """
    graph = view(program)
    blocks = recognise(graph)
    owners = places(graph, blocks)
    unique, total, stored = _weights(graph, owners)
    products = _multiply_adds(program, graph, owners, feed)
    times = _times(program, feed, threads) if threads else None
    roots = {place: value.name for value, place in owners.items()}  # the last of a block
    found = [*dict.fromkeys(owners.values()), OTHER]
    order = {place: number for number, place in enumerate(found)}
    found.sort(key=lambda place: (place in (HEAD, OTHER), order[place]))
    return [
        Part(
            place[0], roots.get(place, ""), unique[place], total[place], stored[place], products[place],
            None if times is None else 1e3 * times[place],
        )
        for place in dict.fromkeys(found)
    ]  # fmt: skip


def places(graph: GraphView, blocks: Blocks) -> dict[Value, Place]:
    """The block that each value is computed in, in the graph's order; what is in none is left out."""
    kinds: list[tuple[str, Iterable[Any], tuple[str, ...]]] = [
        ("norm", blocks.norm, ()),
        ("experts", blocks.experts, ()),
        ("attention", blocks.attention, ("q", "k", "v", "o")),
        ("feed_forward", blocks.feed_forward, ("up", "gate", "down")),
        ("embedding", blocks.embedding, ()),
    ]
    owners: dict[Value, Place] = {}
    layers = []
    for kind, found, linears in kinds:
        for number, block in enumerate(found):
            inner = [getattr(block, name) for name in linears]
            if kind == "experts":
                inner += [block.router, block.router.linear]
            for value in (*block.body, *(v for one in inner if one is not None for v in one.body)):
                owners.setdefault(value, (kind, number))
            layers.append(block.root)
    before = _ancestors([*layers, *(residual.root for residual in blocks.residual)])
    for linear in blocks.linear:
        if linear.root not in before:
            owners.update((value, HEAD) for value in linear.body if value not in owners)
    return {value: owners[value] for value in graph.values if value in owners}


def _ancestors(values: Iterable[Value]) -> set[Value]:
    stack = list(values)
    seen = set(stack)
    while stack:
        new = [v for v in stack.pop().inputs if v is not None and v not in seen]
        seen.update(new)
        stack += new
    return seen


def _weights(
    graph: GraphView, owners: Mapping[Value, Place]
) -> tuple[Counter[Place], Counter[Place], Counter[Place]]:
    """(unique numbers, numbers by use, bytes) of each part."""
    static = Statics()
    unique, total, stored = Counter[Place](), Counter[Place](), Counter[Place]()
    seen: set[Any] = set()
    for value in graph.values:
        if static(value):
            continue
        place = owners.get(value, OTHER)
        for constant in _constants(value, static):
            size = prod(dim for dim in constant.shape or () if isinstance(dim, int))
            counted = size if constant.shape and "float" in str(constant.dtype) else 0
            total[place] += counted
            if (key := _memory(constant.tensor)) not in seen:
                seen.add(key)
                unique[place] += counted
                stored[place] += constant.tensor.nbytes
    return unique, total, stored


def _constants(value: Value, static: Statics) -> Iterator[Value]:
    """The stored tensors that a value reads, as they are or transposed and the like; each once."""
    stack = [v for v in value.inputs if v is not None and static(v)]
    seen = set(stack)
    while stack:
        top = stack.pop()
        if top.op == "const" and top.tensor is not None:
            yield top
        new = [v for v in top.inputs if v is not None and v not in seen]
        seen.update(new)
        stack += new


def _memory(tensor: Any) -> Any:
    """Equal for tensors that are the same numbers in the same place."""
    if not hasattr(tensor, "untyped_storage"):
        return id(tensor)
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _multiply_adds(
    program: Program, graph: GraphView, owners: Mapping[Value, Place], feed: Mapping[str, np.ndarray]
) -> Counter[Place]:
    """Of the products, by the sizes that they have in this call."""
    static = Statics()
    products = [value for value in graph.values if value.op in PRODUCTS and not static(value)]
    wanted = {
        v for product in products for v in (product, *product.inputs) if v is not None and not static(v)
    }
    inner = [value.name for value in wanted if value.op != "input"]
    sizes = {name: array.shape for name, array in feed.items()}
    for arrays in observe(program, inner, [feed]):
        sizes |= {name: array.shape for name, array in arrays.items()}
    counts = Counter[Place]()
    for value in products:
        operands = [sizes.get(v.name) or v.shape or () for v in value.inputs if v is not None]
        counts[owners.get(value, OTHER)] += PRODUCTS[value.op](sizes[value.name], operands, value.attrs)
    return counts


def _einsum(equation: str, operands: list[Shape]) -> int:
    """The product of the sizes of all letters: each of them is gone through once."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].replace(" ", "").split(","), operands, strict=True):
        sizes |= dict(zip(term.replace("...", ""), shape, strict=False))
    return prod(sizes.values())


def _times(program: Program, feed: Mapping[str, np.ndarray], threads: int) -> Mapping[Place, float]:
    """Seconds of the kernels of each part, once it is lowered. A kernel belongs where its result does, or
    else where its weights do."""
    from ..ir.onnx.profile import profile
    from ..passes.lower.to_onnx import ToOnnx
    from ..passes.manager.contract import Context

    lowered = ToOnnx().run(program.clone(), Context()).program if program.dialect == "fx" else program
    graph = view(lowered)
    owners = {value.name: place for value, place in places(graph, recognise(graph)).items()}
    static = Statics()
    readers = {
        constant.name: owners[value.name]
        for value in graph.values
        if value.name in owners
        for constant in _constants(value, static)
    }
    taken: defaultdict[Place, float] = defaultdict(float)
    for kernel, seconds in profile(lowered.graph, feed, threads):
        known = [owners[name] for name in kernel.outputs if name in owners]
        known += [readers[name] for name in kernel.inputs if name in readers]
        taken[known[0] if known else OTHER] += seconds
    return taken

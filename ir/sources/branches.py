"""Inputs that steer: which branch an If takes, how often a Loop turns, whether there is a cache yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..execute import execute
from ..inputs.cached import cache_of, settled
from ..inputs.probe import feed
from ..onnx.graph import taken_in
from ..program import Program
from ..spec import InputSpec

_CARRIES = frozenset({"Identity", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Gather", "Not"})
_TURNS = (0, 3)  # of a loop that an input counts, in probes


def steered(program: Program) -> Program:
    """The program with what its control flow says of inputs.

    Where one branch of an If reads a cache and the other doesn't, the flag that chooses is set exactly where
    the cache is not empty, as the one who calls does (Optimum's `use_cache_branch`).
    """
    specs = {spec.name: spec for spec in program.inputs}
    cache = cache_of(program)
    for node in program.graph.graph:
        found = _steering(node.inputs[0]) if node.inputs else None
        if found is None or found[0] not in specs:
            continue
        name, turned = found
        spec = specs[name]
        if node.op_type == "Loop" and "int" in spec.dtype and spec.high is None:
            specs[name] = replace(spec, seen=_TURNS)
        elif node.op_type == "If" and cache is not None and spec.role == "other":
            reads = _reads(node, cache.past, program.inputs)
            if reads is not None:
                hidden = float(reads == turned)  # the flag's value where the cache is left alone
                specs[name] = replace(spec, role="cache_flag", follows=cache.past, hidden=hidden)
    return replace(program, inputs=tuple(specs.values()))


def from_the_start(program: Program) -> Program:
    """The program with an empty cache allowed, the first call of a text, where it runs on one: tried once."""
    cache = cache_of(program)
    low, high = program.symbols.get(cache.past, (0, 0)) if cache is not None else (0, 0)
    if cache is None or low == 0:
        return program
    allowed = replace(program, symbols={**program.symbols, cache.past: (0, high)})
    few = {symbol: min(max(2, least), most) for symbol, (least, most) in program.symbols.items()}
    try:
        made = execute(allowed, [feed(allowed, settled(allowed, {**few, cache.past: 0}))])[0]
    except Exception:  # ONNX Runtime's errors have no base of their own
        return program
    finite = all(np.isfinite(array).all() for array in made.values() if array.dtype.kind == "f")
    return allowed if finite else program


def _steering(value: ir.Value | None) -> tuple[str, bool] | None:
    """The input that a condition or a count comes from, and whether it was negated on the way."""
    turned = False
    while value is not None and not value.is_graph_input():
        node = value.producer()
        if node is None or node.op_type not in _CARRIES:
            return None
        turned ^= node.op_type == "Not"
        value = node.inputs[0]
    return None if value is None else (str(value.name), turned)


def _reads(node: ir.Node, past: str, inputs: Sequence[InputSpec]) -> bool | None:
    """Whether the branch taken where the condition holds is the one that reads the cache; None where both do,
    or neither."""
    states = {spec.name for spec in inputs if past in spec.shape and len(spec.shape) > 2}
    then, other = (
        any(value.name in states for value in taken_in([node.attributes[name].value]))
        for name in ("then_branch", "else_branch")
    )
    return then if then != other else None

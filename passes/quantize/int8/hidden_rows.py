"""Rows that are NaN because every key is hidden from them, and keeping them out of everyone's scale.

Where a mask is made of -inf, a query that may look at nothing (a padded position in a local window, or
before the first token of a left-padded row) gets softmax(-inf, ..., -inf) = NaN. In float the NaN stays in
its row, which is padding. One scale for the whole tensor would carry it to every token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ....ir.execute import observe
from ....ir.inputs.probe import probes
from ....ir.onnx.graph import outer_values
from ....ir.program import Program
from ....ir.spec import MASKS
from ...manager.contract import Context
from .sites import Site

# What turns hidden scores into NaN; ReduceMax is how a softmax written out begins. ONNX's own Attention is
# not among them: ONNX Runtime gives zero for a row without keys.
_SOFTMAX = frozenset(
    {
        ("", "Softmax"),
        ("", "ReduceMax"),
        ("com.microsoft", "Attention"),
        ("com.microsoft", "MultiHeadAttention"),
        ("com.microsoft", "GroupQueryAttention"),
    }
)


def nan_sources(program: Program, context: Context) -> frozenset[str]:
    """Names of the values that are NaN in a row whose keys are all hidden: those computed from -inf.

    Whether -inf occurs is seen on probe inputs, whose masks hide keys in every usual pattern.
    """
    if not any(spec.role in (*MASKS, "mask") or spec.follows is not None for spec in program.inputs):
        return frozenset()
    nodes = [node for node in program.graph.graph if (node.domain, node.op_type) in _SOFTMAX]
    scores = dict.fromkeys(v for node in nodes for v in node.inputs if v is not None and v.producer())
    if not scores:
        return frozenset()
    names = [str(value.name) for value in scores]
    hidden: set[str] = set()
    for found in observe(program, names, probes(program, context.seed), context.threads):
        hidden.update(name for name, array in found.items() if (array == -np.inf).any())
    return frozenset(
        str(node.outputs[0].name) for node in nodes if any(v and v.name in hidden for v in node.inputs)
    )


def needing_guard(
    graph: ir.Graph, sites: Sequence[Site], in_int8: Sequence[bool], sources: frozenset[str]
) -> set[int]:
    """Numbers of the int8 sites that a NaN row reaches; guarded, their products are finite."""
    number_of = {product.node: n for n, site in enumerate(sites) if in_int8[n] for product in site.products}
    found: set[int] = set()
    reached: set[ir.Value] = set()
    for node in graph:
        touched = [v for v in (*node.inputs, *outer_values(node)) if v in reached]
        number = number_of.get(node)
        if touched and number is not None:
            found.add(number)
        if node.outputs[0].name in sources or (touched and number is None and not _stops(node, reached)):
            reached.update(node.outputs)
    return found


def _stops(node: ir.Node, reached: set[ir.Value]) -> bool:
    """Whether a node's results are finite whatever the row: sizes, and Where(IsNaN(x), 0, x)."""
    if node.op_type in ("Shape", "Size", "IsNaN"):
        return True
    if node.op_type != "Where" or node.inputs[0] is None:
        return False
    test = node.inputs[0].producer()
    return test is not None and test.op_type == "IsNaN" and node.inputs[2] is test.inputs[0]

"""Floats from byte codes, inside an fx graph, by plain lookups: what a byte stands for is a row of a table.

A weight of (rows, columns) becomes codes (rows, bytes), uint8; a table (entries, width) of float numbers, the
`width` columns that each byte gives; and, perhaps, a scale to each row. Gather, Reshape and Mul decode it, so
the graph trains (the table and the scale have gradients) and exports as it is. A lookup of rows takes the
rows of the codes first, and decodes those alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from ....ir.fx.graph import add_tensor, attribute, call, replace_tensor
from ...common.fx_weights import Matrix

_ATEN = torch.ops.aten
SHARED = "levels"  # the table of all weights that have none of their own


@dataclass(frozen=True)
class CodedMatrix:
    """codes: uint8 (rows, bytes). table: (entries, width), width * bytes >= columns. scale: (rows, 1), (1, 1)
    or None. All of it is read from the graph by get_attr nodes."""

    codes: Node
    table: Node
    scale: Node | None


def write(
    graph: GraphModule,
    matrix: Matrix,
    codes: torch.Tensor,
    table: torch.Tensor | Node,
    scale: torch.Tensor | None = None,
) -> CodedMatrix:
    """Put codes in place of a weight, for every reader of it; call fx.prune after the last.

    Args:
        matrix: found in this graph.
        codes, table, scale: as in `CodedMatrix`; a table may be a get_attr node before the weight's
            readers.
    """
    start, name = matrix.readers[0], matrix.name
    coded = CodedMatrix(
        add_tensor(graph, f"{name}_codes", codes, start),
        table if isinstance(table, Node) else add_tensor(graph, f"{name}_table", table, start),
        None if scale is None else add_tensor(graph, f"{name}_scale", scale, start),
    )
    for lookup, ids in matrix.lookups:
        lookup.replace_all_uses_with(_rows(matrix, coded, ids, before=lookup))
        graph.graph.erase_node(lookup)
    if matrix.whole:
        decoded = _decoded(matrix, coded, coded.codes, coded.scale, start)
        if matrix.turned:
            decoded = call(graph.graph, _ATEN.permute.default, decoded, [1, 0], before=start)
        if matrix.tensor.dim() > 2:
            shape = list(matrix.tensor.shape)
            decoded = call(graph.graph, _ATEN.reshape.default, decoded, shape, before=start)
        for reader in matrix.readers:
            reader.replace_all_uses_with(decoded)
    return coded


def decode(graph: GraphModule, matrix: Matrix) -> torch.Tensor | None:
    """What `write` has a graph compute with in the place of a weight, float32 (rows, columns); None if there
    are no codes of it."""
    names = {str(node.target) for node in graph.graph.find_nodes(op="get_attr")}
    parts = [f"{matrix.name}_{part}" for part in ("codes", "table", "scale")]
    codes, table, scale = (attribute(graph, name).detach() if name in names else None for name in parts)
    if codes is None:
        return None
    if table is None:
        table = attribute(graph, SHARED).detach()
    dtype = matrix.tensor.dtype
    floats = table.to(dtype)[codes.int()].flatten(1)[:, : matrix.columns]
    return (floats if scale is None else floats * scale.to(dtype)).float()


def narrow(graph: GraphModule, *nodes: Node | None) -> None:
    """Store what get_attr nodes read in float16 for good: 11 bits of mantissa are plenty for centroids and
    scales. A tensor whose numbers are too large or too small for it stays as it is."""
    for node in nodes:
        if node is not None:
            tensor = attribute(graph, str(node.target)).detach()
            half = tensor.half()
            if (half.float() - tensor).abs().max() <= tensor.abs().max() * 2**-11:
                replace_tensor(graph, node, torch.nn.Parameter(half))


def bytes_of(graph: GraphModule, coded: CodedMatrix) -> int:
    """What the codes, the table and the scale take together."""
    nodes = (coded.codes, coded.table, coded.scale)
    return sum(attribute(graph, str(node.target)).nbytes for node in nodes if node is not None)


def _rows(matrix: Matrix, coded: CodedMatrix, ids: Node, before: Node) -> Node:
    graph = before.graph
    codes = call(graph, _ATEN.embedding.default, coded.codes, ids, before=before)
    scale = coded.scale
    if scale is not None and scale.meta["val"].shape[0] > 1:
        scale = call(graph, _ATEN.embedding.default, scale, ids, before=before)
    return _decoded(matrix, coded, codes, scale, before)


def _decoded(matrix: Matrix, coded: CodedMatrix, codes: Node, scale: Node | None, before: Node) -> Node:
    """Codes (..., bytes) -> floats (..., columns) of the weight's own dtype."""
    graph, dtype = before.graph, matrix.tensor.dtype
    table = call(graph, _ATEN.to.dtype, coded.table, dtype, before=before)
    codes = call(graph, _ATEN.to.dtype, codes, torch.int32, before=before)
    pieces = call(graph, _ATEN.embedding.default, table, codes, before=before)
    decoded = call(graph, _ATEN.flatten.using_ints, pieces, -2, -1, before=before)
    if decoded.meta["val"].shape[-1] != matrix.columns:
        decoded = call(graph, _ATEN.slice.Tensor, decoded, -1, 0, matrix.columns, before=before)
    if scale is not None:
        scale = call(graph, _ATEN.to.dtype, scale, dtype, before=before)
        decoded = call(graph, _ATEN.mul.Tensor, decoded, scale, before=before)
    return decoded

"""fuse-embedding-norm: lookups, their sum and its LayerNorm as one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.blocks import recognise
from ...ir.blocks.base import Embedding, Norm
from ...ir.blocks.walk import bare
from ...ir.onnx.graph import Editor
from ...ir.program import Program
from ...ir.values import Value
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.driver import Unfit, drive

_CHANGES = ("mul", "div", "where", "linear", "matmul")


@dataclass(frozen=True)
class FuseEmbeddingNorm(Pass):
    """Replace LayerNorm(words[ids] + positions[places] (+ types[kinds])) by EmbedLayerNormalization.

            a = Add(Gather(words, ids), Gather(positions, places)); y = LayerNormalization(a, w, b)
        ->  y = EmbedLayerNormalization(ids, words, positions, w, b)

    The kernel (com.microsoft, ONNX Runtime's contrib operators) takes 32-bit ids of shape (batch, length), a
    table of positions, perhaps one of types, and a scale and shift. Positions that simply count from zero
    need no ids at all. Any other number of tables, RMSNorm, or a sum that something else reads too stays as
    it is, with a note.
    """

    name: ClassVar[str] = "fuse-embedding-norm"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        blocks = recognise(view(program))
        norms = {norm.input: norm for norm in blocks.norm}
        editor, notes = Editor(program.graph), list[str]()
        fused = drive(
            blocks.embedding,
            lambda embedding: embedding.root.name,
            lambda embedding: (_norm_of(embedding, norms), _lookups(embedding)),
            lambda embedding, plan: _write(editor, *plan),
            "fuse embedding",
            context,
            notes,
        )
        if fused:
            editor.prune()
        counts = {"embeddings fused": f"{len(fused)} of {len(blocks.embedding)}"}
        return Result(program, bool(fused), counts, tuple(notes))


@dataclass(frozen=True)
class _Lookups:
    """Tables and their ids, words first. positions_count: the positions are 0, 1, 2, ... in every row."""

    words: tuple[Value, Value]
    positions: tuple[Value, Value]
    types: tuple[Value, Value] | None
    positions_count: bool


def _norm_of(embedding: Embedding, norms: dict[Value, Norm]) -> Norm:
    norm = norms.get(embedding.root) or next((n for i, n in norms.items() if bare(i) == embedding.root), None)
    if norm is None:
        raise Unfit("no norm follows the sum")
    if norm.kind != "layer_norm" or norm.weight is None or norm.bias is None:
        raise Unfit(f"{norm.kind} follows the sum, and the kernel has a LayerNorm with scale and shift")
    if any(user not in norm.body for user in embedding.root.users):
        raise Unfit("something else reads the sum too (a residual stream, most likely)")
    return norm


def _lookups(embedding: Embedding) -> _Lookups:
    pairs = list(zip(embedding.tables, embedding.ids, strict=True))
    if not 2 <= len(pairs) <= 3:
        raise Unfit(f"{len(pairs)} tables are added, and the kernel adds two or three")
    scaled = next((value for value in embedding.body if value.op in _CHANGES), None)
    if scaled is not None:
        raise Unfit(f"'{scaled.name}' changes what is looked up, and the kernel only adds")
    for table, ids in pairs:
        if table.dtype not in (None, "float32"):
            raise Unfit(f"'{table.name}' is {table.dtype}, and only float32 is fused")
        if table.dtype is None or len(table.shape or ()) != 2:
            raise Unfit(f"'{table.name}' is no table of two axes")
        if ids.dtype not in ("int32", "int64") or len(ids.shape or ()) != 2:
            raise Unfit(f"'{ids.name}' does not give ids of two axes")
    # Words vary by row; of the others at most one is shared by all rows, and that is the positions'.
    words = max(pairs, key=lambda pair: (_by_row(pair[1]), (pair[0].shape or (0,))[0]))
    rest = sorted((pair for pair in pairs if pair is not words), key=lambda pair: _by_row(pair[1]))
    if not _by_row(words[1]) or any(not _by_row(ids) for _, ids in rest[1:]):
        raise Unfit("more than one of its tables is looked up by ids that are the same in every row")
    positions, types = rest[0], rest[1] if len(rest) > 1 else None
    return _Lookups(words, positions, types, _counts(positions[1]))


def _by_row(ids: Value) -> bool:
    return ids.shape is not None and ids.shape[0] != 1


def _counts(ids: Value) -> bool:
    """Whether ids are 0, 1, 2, ... along the last axis: a slice from the start of such a constant."""
    if ids.op != "slice" or ids.inputs[0] is None or ids.inputs[0].const is None or _by_row(ids):
        return False
    data, attrs = ids.inputs[0].const, ids.attrs
    starts = attrs.get("start") == 0 and attrs.get("step", 1) == 1 and attrs.get("axis") in (1, -1)
    return starts and data.ndim == 2 and np.array_equal(data[0], np.arange(data.shape[1]))


def _write(editor: Editor, norm: Norm, lookups: _Lookups) -> None:
    root: ir.Value = norm.root.native
    before = root.producer()
    assert before is not None
    name = root.name or "embedding"

    def narrow(ids: Value) -> ir.Value:
        if ids.dtype == "int32":
            return ids.native
        attrs = {"to": int(ir.DataType.INT32)}
        return editor.node("Cast", [ids.native], f"{ids.name}.int32", before=before, attrs=attrs).outputs[0]

    assert norm.weight is not None
    assert norm.bias is not None
    types = lookups.types
    places = None if lookups.positions_count else narrow(lookups.positions[1])
    inputs = [
        narrow(lookups.words[1]),
        narrow(types[1]) if types else None,
        lookups.words[0].native,
        lookups.positions[0].native,
        types[0].native if types else None,
        norm.weight.native,
        norm.bias.native,
        None,
        places,
    ]
    node = editor.node(
        "EmbedLayerNormalization",
        inputs if places is not None else inputs[:7],
        f"{name}.embedded",
        before=before,
        domain="com.microsoft",
        attrs={"epsilon": norm.epsilon},
        results=2,  # the second, an index of the mask, is not optional for shape inference
    )
    editor.replace(root, node.outputs[0])

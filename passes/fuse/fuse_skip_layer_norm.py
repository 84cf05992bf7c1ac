"""fuse-skip-layer-norm: residual sum, bias and norm in one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ...ir.blocks import recognise
from ...ir.blocks.base import Norm
from ...ir.onnx.graph import Editor
from ...ir.program import Program
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.driver import Unfit, drive, misses


@dataclass(frozen=True)
class FuseSkipLayerNorm(Pass):
    """Replace a residual sum and its norm by com.microsoft SkipLayerNormalization, or the RMSNorm one's.

            t = Add(x, Add(p, bias)); y = LayerNormalization(t, w, b)
        ->  y, t = SkipLayerNormalization(x, p, w, b, bias)

    A bias on one of the two sides goes in as well. Where the stream is read elsewhere too (norms before
    sub-layers), the kernel returns the sum beside the normalised value.
    """

    name: ClassVar[str] = "fuse-skip-layer-norm"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        blocks = recognise(view(program))
        editor = Editor(program.graph)
        notes = misses(blocks.missed, "norm")
        fused = drive(
            blocks.norm,
            lambda norm: norm.root.name,
            _check,
            lambda norm, _: _fuse(editor, norm),
            "fuse skip norm",
            context,
            notes,
        )
        if fused:
            editor.prune()
        counts = {"norms fused": f"{len(fused)} of {len(blocks.norm)}"}
        return Result(program, bool(fused), counts, tuple(notes))


def _check(norm: Norm) -> None:
    """Raises Unfit where a norm and the sum before it do not go into the kernel."""
    total = norm.input
    if norm.kind == "no_norm":
        raise Unfit("it does not normalise")
    if total.op != "add" or any(v is None or v.op == "const" for v in total.inputs):
        raise Unfit("it normalises no sum of two computed values")
    if total.native.producer().op_type != "Add":
        raise Unfit("its sum is kept apart, as keep-residual-sum leaves it")
    shapes = [v.shape for v in total.inputs if v is not None]
    # Equal known sizes and equal symbols: the kernel broadcasts only a leading axis of 1.
    if shapes[0] is None or shapes[0] != shapes[1] or len(shapes[0]) != 3 or None in shapes[0]:
        raise Unfit("the two sides of the sum are not known to have one shape of three axes")
    if norm.weight is None or norm.weight.shape != shapes[0][-1:]:
        raise Unfit("its weight is no vector over the last axis")
    if total.dtype not in (None, "float32"):
        raise Unfit(f"it computes in {total.dtype}, and only float32 is fused")


def _fuse(editor: Editor, norm: Norm) -> None:
    total, root = norm.input.native, norm.root.native
    before, name = root.producer(), f"{root.name}.skip"
    sides = list(total.producer().inputs)
    bias = None
    for index, side in enumerate(sides):
        bias = _bias(side)
        if bias is not None:
            sides[index] = next(v for v in side.producer().inputs if v is not bias)
            break
    assert norm.weight is not None
    inputs: list[ir.Value | None] = [*sides, norm.weight.native]
    simplified = norm.kind == "rms_norm"
    if not simplified:
        inputs.append(norm.bias.native if norm.bias is not None else None)
    if bias is not None:
        inputs.append(bias)
    elif inputs[-1] is None:
        inputs.pop()
    kept = total.is_graph_output() or len({use.node for use in total.uses()}) > 1
    node = editor.node(
        "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization",
        inputs, name, before=before, attrs={"epsilon": norm.epsilon}, domain="com.microsoft",
        results=4 if kept else 1, like=root,
    )  # fmt: skip
    if kept:
        for unused in node.outputs[1:3]:
            unused.name = ""
        node.outputs[3].type, node.outputs[3].shape = total.type, total.shape
    editor.replace(root, node.outputs[0])
    if kept:
        editor.replace(total, node.outputs[3])


def _bias(branch: ir.Value) -> ir.Value | None:
    """The constant vector that a branch ends in adding, if nothing else reads the branch."""
    node = branch.producer()
    if node is None or node.op_type != "Add" or len(branch.uses()) != 1 or branch.is_graph_output():
        return None
    constant = [v for v in node.inputs if v is not None and ir.convenience.get_const_tensor(v) is not None]
    return constant[0] if len(constant) == 1 and len(constant[0].shape or ()) == 1 else None

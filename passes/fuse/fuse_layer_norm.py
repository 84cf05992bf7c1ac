"""fuse-layer-norm: norms that are spelled out, as one operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir.blocks import recognise
from ...ir.blocks.base import Norm
from ...ir.onnx.graph import Editor
from ...ir.onnx.opset import cannot_raise, opset, raise_opset
from ...ir.program import Program
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.driver import Unfit, drive, misses

_RMS_OPSET = 23  # the first with an RMSNormalization of its own
_LAYER_OPSET = 17  # the first with a LayerNormalization


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """Replace LayerNorm and RMSNorm that are spelled out by LayerNormalization and RMSNormalization.

            c = Sub(x, ReduceMean(x)); n = Div(c, Sqrt(Add(ReduceMean(Mul(c, c)), eps))); y = Mul(n, w)
        ->  y = LayerNormalization(x, w)

    Scale and shift that stand below the norm go in. The model is raised to opset 23 for RMSNormalization.
    """

    name: ClassVar[str] = "fuse-layer-norm"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def run(self, program: Program, context: Context) -> Result:
        blocks = recognise(view(program))
        editor = Editor(program.graph)
        notes = misses(blocks.missed, "norm")
        spelled = [norm for norm in blocks.norm if len(norm.body) > 1 and norm.kind != "no_norm"]
        stuck = cannot_raise(program.graph, _RMS_OPSET)

        def check(norm: Norm) -> None:
            if norm.kind == "rms_norm" and stuck:
                raise Unfit(stuck)
            if norm.kind == "layer_norm" and opset(program.graph) < _LAYER_OPSET:
                written = f"the model imports opset {opset(program.graph)}"
                raise Unfit(f"{written}, and {_LAYER_OPSET} has the operator")
            _check(norm)

        def write(norm: Norm, _: None) -> None:
            _fuse(editor, norm)
            if norm.kind == "rms_norm":
                raise_opset(program.graph, _RMS_OPSET)

        fused = drive(spelled, lambda norm: norm.root.name, check, write, "fuse norm", context, notes)
        if fused:
            editor.prune()
        return Result(program, bool(fused), {"norms fused": f"{len(fused)} of {len(spelled)}"}, tuple(notes))


def _check(norm: Norm) -> None:
    """Raises Unfit where a norm is not what the operator computes."""
    width = (norm.input.shape or (None,))[-1]
    if not isinstance(width, int):
        raise Unfit("the size of its last axis is unknown")
    for vector in (norm.weight, norm.bias):
        if vector is not None and vector.shape != (width,):
            raise Unfit(f"'{vector.name}' is no vector over the last axis")
    if norm.kind == "rms_norm" and norm.bias is not None:
        raise Unfit("an RMSNorm with a bias has no operator")
    if norm.input.dtype not in (None, "float32"):
        raise Unfit(f"it computes in {norm.input.dtype}, and only float32 is fused")


def _fuse(editor: Editor, norm: Norm) -> None:
    root = norm.root.native
    name, before = f"{root.name}.norm", root.producer()
    width = (norm.input.shape or (0,))[-1]
    if norm.weight is not None:
        weight = norm.weight.native
    else:
        assert isinstance(width, int)
        weight = editor.initializer(np.ones(width, np.float32), f"{name}.weight")
    inputs = [editor.current(norm.input.native), weight]
    if norm.bias is not None:
        inputs.append(norm.bias.native)
    op_type = "LayerNormalization" if norm.kind == "layer_norm" else "RMSNormalization"
    attrs = {"axis": -1, "epsilon": norm.epsilon}
    node = editor.node(op_type, inputs, name, before=before, attrs=attrs, like=root)
    editor.replace(root, node.outputs[0])

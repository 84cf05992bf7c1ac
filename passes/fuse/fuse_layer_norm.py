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
from ..manager.contract import Context, Exact, Pass, Result

_RMS_OPSET = 23  # the first with an RMSNormalization of its own
_LAYER_OPSET = 17  # the first with a LayerNormalization


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """Replace LayerNorm and RMSNorm that are spelled out by LayerNormalization and RMSNormalization.

    Scale and shift that stand below the norm go in. The model is raised to opset 23 for RMSNormalization.
    """

    name: ClassVar[str] = "fuse-layer-norm"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def run(self, program: Program, context: Context) -> Result:
        blocks = recognise(program)
        editor = Editor(program.graph)
        notes = [f"{m.node}: {m.reason}" for m in blocks.missed if m.kind == "norm"]
        spelled = [norm for norm in blocks.norm if len(norm.body) > 1 and norm.kind != "no_norm"]
        stuck = cannot_raise(program.graph, _RMS_OPSET)
        fused = 0
        for norm in spelled:
            why = stuck if norm.kind == "rms_norm" else None
            if norm.kind == "layer_norm" and opset(program.graph) < _LAYER_OPSET:
                why = f"the model imports opset {opset(program.graph)}, and {_LAYER_OPSET} has the operator"
            why = why or _unfit(norm)
            if why:
                notes.append(f"{norm.root.name}: {why}")
            elif context.allow(f"fuse norm {norm.root.name}"):
                _fuse(editor, norm)
                fused += 1
                if norm.kind == "rms_norm":
                    raise_opset(program.graph, _RMS_OPSET)
        if fused:
            editor.prune()
        return Result(program, fused > 0, {"norms fused": f"{fused} of {len(spelled)}"}, tuple(notes))


def _unfit(norm: Norm) -> str | None:
    """Why a norm is not what the operator computes."""
    width = (norm.input.shape or (None,))[-1]
    if not isinstance(width, int):
        return "the size of its last axis is unknown"
    for vector in (norm.weight, norm.bias):
        if vector is not None and vector.shape != (width,):
            return f"'{vector.name}' is no vector over the last axis"
    if norm.kind == "rms_norm" and norm.bias is not None:
        return "an RMSNorm with a bias has no operator"
    if norm.input.dtype not in (None, "float32"):
        return f"it computes in {norm.input.dtype}, and only float32 is fused"
    return None


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

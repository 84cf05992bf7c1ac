"""Blocks in what the TorchScript exporter writes: old opsets, no operator left whole."""

import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view


class Positional(torch.nn.Module):
    """A zoo member with tensors in order and one tensor out, as that exporter wants it."""

    def __init__(self, name, attn):
        super().__init__()
        self.module, self.names = zoo.ARCHITECTURES[name].build(attn), list(zoo.ARCHITECTURES[name].inputs())

    def forward(self, *tensors):
        result = self.module(**dict(zip(self.names, tensors, strict=True)))
        return result if isinstance(result, torch.Tensor) else result[0]


@pytest.mark.parametrize(
    ("name", "attn", "opset"),
    [
        ("bert", "eager", 11), ("bert", "sdpa", 17), ("distilbert", "sdpa", 14), ("vit", "eager", 13),
        ("squeezebert", "eager", 12), ("whisper", "sdpa", 14), ("torch_encoder", "sdpa", 14),
        ("nanogpt", "sdpa", 14), ("nanogpt", "eager", 17), ("einsum", "eager", 13),
    ],
)  # fmt: skip
def test_the_torchscript_exporters_blocks_are_all_found(tmp_path, name, attn, opset):
    case = zoo.ARCHITECTURES[name]
    inputs = case.inputs(2, 7)
    fixed = case.fixed or name == "torch_encoder"  # the tracer bakes nn.MultiheadAttention's sizes in
    axes = {} if fixed else {key: {0: "b", 1: "t"} for key in inputs}
    torch.onnx.export(
        Positional(name, attn).eval(), tuple(inputs.values()), tmp_path / "m.onnx", dynamo=False,
        opset_version=opset, input_names=list(inputs), output_names=["y"], dynamic_axes=axes,
    )  # fmt: skip
    found = recognise(view(capture(tmp_path / "m.onnx")))
    counts = found.summary()
    assert {kind: counts[kind] for kind in case.expected} == case.expected, found.missed
    assert found.missed == ()
    assert all(a.q is not None and a.k is not None and a.v is not None for a in found.attention)
    assert {round(a.scale * a.head_dim**0.5, 5) for a in found.attention} == {1.0}

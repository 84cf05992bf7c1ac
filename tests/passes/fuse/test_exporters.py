"""One small BERT through both of PyTorch's ONNX exporters, in both spellings of attention: all of it fuses.

ONNX Runtime's own optimizer finds none of the attentions of the dynamo exporter's file.
"""

import io

import numpy as np
import onnx
import pytest
import torch
import transformers
from fusing import fused
from graphwright.ir.capture import capture
from graphwright.passes.fuse.fuse_attention import FuseAttention
from graphwright.passes.fuse.fuse_bias_gelu import FuseBiasGelu
from graphwright.passes.fuse.fuse_qkv import FuseQkv
from graphwright.passes.manager.pipeline import Pipeline

pytestmark = pytest.mark.slow  # four exports

LAYERS = 6
TOLERANCE = 1e-5  # float32 rounding through six layers
CANONICAL = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Encoder(torch.nn.Module):
    """BERT as six layers of two heads, its last hidden state alone."""

    def __init__(self, attention):
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=101, hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=64, attn_implementation=attention,
        )  # fmt: skip
        torch.manual_seed(0)
        self.model = transformers.BertModel(config, add_pooling_layer=False).eval()
        for parameter in self.model.parameters():
            if parameter.dim() == 1:  # biases start at zero, and an Add of zeros would be eliminated
                parameter.data += torch.randn(parameter.shape) * 0.1

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state


def feeds():
    rng = np.random.default_rng(0)
    for batch, length in ((1, 1), (3, 9), (2, 17)):
        ids = rng.integers(0, 101, (batch, length))
        mask = (np.arange(length) < np.maximum(1, length - 3 * np.arange(batch))[:, None]).astype(np.int64)
        yield dict(zip(NAMES, (ids, mask, np.zeros_like(ids)), strict=True))


def exported(attention, dynamo, path):
    module = Encoder(attention).eval()
    example = tuple(torch.from_numpy(array) for array in list(feeds())[1].values())
    axes = {name: {0: "batch", 1: "length"} for name in NAMES}
    with torch.no_grad():
        if dynamo:
            shapes = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} for name in NAMES}
            torch.onnx.export(
                module,
                example,
                path,
                input_names=list(NAMES),
                dynamo=True,
                dynamic_shapes=shapes,
                verbose=False,
            )
        else:
            buffer = io.BytesIO()
            torch.onnx.export(
                module,
                example,
                buffer,
                input_names=list(NAMES),
                dynamo=False,
                dynamic_axes=axes,
                opset_version=18,
            )
            onnx.save(onnx.load_from_string(buffer.getvalue()), path)
    return capture(path)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_attention_and_gelu_is_fused(attention, dynamo, tmp_path):
    program = exported(attention, dynamo, tmp_path / "model.onnx")
    run = Pipeline.parse(CANONICAL).run(program)
    assert run.ok, [step.error for step in run.steps]
    # ONNX Runtime's kernel gives NaN where every key is hidden, and the TorchScript exporter's SDPA zero
    guarded = attention == "sdpa" and not dynamo
    for pass_, key, expected in (
        (FuseAttention(), "attentions fused", f"{LAYERS} of {LAYERS}"),
        (FuseAttention(kernel="multi-head"), "attentions fused", f"{0 if guarded else LAYERS} of {LAYERS}"),
        (FuseQkv(), "projections merged", f"{3 * LAYERS} of {3 * LAYERS}"),
        (FuseBiasGelu(), "with a bias", LAYERS),
    ):
        result = fused(pass_, run.program, TOLERANCE, list(feeds()))
        assert result.statistics[key] == expected, result.notes

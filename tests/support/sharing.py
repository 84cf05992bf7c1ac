"""What tests of shared weights share: stacks of so many layers or so wide ones, and what is stored."""

import torch
from graphwright.ir.capture import capture
from graphwright.ir.fx.graph import to_numpy
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from recovery import feeds_of
from torch import nn
from transformers import BertConfig, BertModel
from zoo.handwritten import CausalBlock

SIZES = {
    "vocab_size": 53, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 32,
}  # fmt: skip


class Blocks(nn.Module):
    """Pre-norm blocks of these widths of their feed-forwards."""

    def __init__(self, *widths, heads=(3,)):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(83, 36)
        heads = heads * len(widths) if len(heads) == 1 else heads
        self.blocks = nn.ModuleList(
            CausalBlock(36, count, width, 40, True) for count, width in zip(heads, widths, strict=True)
        )

    def forward(self, input_ids):
        x = self.table(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


IDS = {"input_ids": torch.arange(27).reshape(3, 9)}


def blocks(*widths, **settings):
    return capture(Blocks(*widths, **settings).eval(), inputs=IDS)


def bert(layers, alike=False):
    """A BERT of so many layers; all hold the first one's numbers, each its own copy, where they are alike."""
    torch.manual_seed(0)
    module = BertModel(BertConfig(num_hidden_layers=layers, **SIZES), add_pooling_layer=False).eval()
    for layer in module.encoder.layer[1:] if alike else ():
        layer.load_state_dict(module.encoder.layer[0].state_dict())
    ids = torch.arange(18).reshape(3, 6)
    return capture(module, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def run(text, program):
    """What a pipeline makes of a program, without gates."""
    done = Pipeline.parse(text).run(program, Context(calibration=feeds_of(program, 6), gates=False))
    assert done.ok, [step.error for step in done.steps]
    return done.program


def weights(program):
    """Everything stored that is more than sizes and scales."""
    if program.dialect == "onnx":
        tensors = [v.const_value.numpy() for v in program.graph.graph.initializers.values()]
    else:
        tensors = [to_numpy(t) for t in (*program.graph.parameters(), *program.graph.buffers())]
    return [t for t in tensors if t.size > 64]


def once(one, many):
    """Two programs store the same kinds of tensors, and the second no content twice."""
    kinds = [sorted((t.dtype.str, t.shape) for t in weights(program)) for program in (one, many)]
    contents = [(t.dtype.str, t.shape, t.tobytes()) for t in weights(many)]
    return kinds[0] == kinds[1] and len(set(contents)) == len(contents)

"""to-onnx keeps a module's names, types and outputs, and spells what torch's exporter has no spelling for."""

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.pipeline import Pipeline
from modules import Small, floats, ids
from torch import nn
from torch.nn import functional as F  # noqa: N812

attention = F.scaled_dot_product_attention
X, IDS = floats(3, 11, 4), ids(3, 11)


def lowered(module, inputs, pipeline="to-onnx"):
    program = capture(module, inputs=inputs)
    run = Pipeline.parse(pipeline).run(program)
    assert run.ok, [str(step.error) for step in run.steps]
    return run.program


def agree(module, program, tolerance=1e-5, call=None):
    feeds = probes(program, seed=1)
    for feed, got in zip(feeds, execute(program, feeds), strict=True):
        tensors = [torch.from_numpy(array) for array in feed.values()]
        with torch.no_grad():
            expected = (call or module)(*tensors)
        expected = torch.utils._pytree.tree_leaves(expected)
        for a, b in zip(expected, got.values(), strict=True):
            assert (tuple(a.shape), str(a.dtype)[6:]) == (b.shape, str(b.dtype))
            wanted, found = a.detach().double().numpy(), b.astype(np.float64)
            error = np.abs(wanted - found) / np.maximum(1, np.abs(wanted))
            assert float(np.max(error, initial=0)) < tolerance


def features_and_lengths(self, features, lengths):
    return self.linear(features), features, lengths


def keyed(self, features, lengths):
    return {"y": self.linear(features), "lengths": lengths, "weight": self.linear.weight}


@pytest.mark.parametrize(
    ("module", "inputs", "outputs"),
    [
        (Small(features_and_lengths), [X, torch.tensor([9, 11, 3])], ("output_0", "output_1", "output_2")),
        (Small(keyed), [X, torch.tensor([9, 11, 3])], ("y", "lengths_out", "weight")),
        (Small(lambda self, x: (self.linear(x), self.linear.weight)), [X], ("output_0", "output_1")),
        (Small(lambda self, x: [self.linear(x)] * 2), [X], ("output_0", "output_1")),
        (Small(lambda self, x: self.linear(x).mean((1, 2))), [X], ("output",)),
        (Small(lambda self, x: self.linear(x).mean()), [X], ("output",)),
        (Small(lambda self, x: self.linear(x) > 0), [X], ("output",)),
    ],
    ids=["inputs given out", "one name twice", "a weight", "one value twice", "rank 1", "rank 0", "bool"],
)  # fmt: skip
def test_outputs_are_the_modules_whatever_they_are(module, inputs, outputs):
    program = lowered(module, inputs, "to-onnx,fold-constants,eliminate-identities")
    assert tuple(value.name for value in program.graph.graph.outputs) == program.outputs == outputs
    agree(module, program)


@pytest.mark.parametrize(
    "names",
    [("input", "type"), ("output", "linear"), ("class", "a.b"), ("add", "embedding"), ("b", "a")],
)
def test_inputs_keep_their_names(names):
    def forward(self, **given):
        return self.linear(given[names[0]]) + self.table(given[names[1]])

    module = Small(forward)
    program = lowered(module, dict(zip(names, (X, IDS), strict=True)))
    assert tuple(value.name for value in program.graph.graph.inputs) == names
    agree(module, program, call=lambda *given: module(**dict(zip(names, given, strict=True))))


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        (lambda self, x, y: attention(self.linear(x), y, y), [X, floats(3, 7, 4)]),
        (lambda self, x: attention(self.linear(x), x, x, is_causal=True), [X]),
        (lambda self, x, mask: attention(self.linear(x), x, x, mask), [X, floats(3, 11, 11)]),
        (lambda self, x: attention(self.linear(x), x, x), [X[0]]),
        (lambda self, x: attention(self.linear(x), x, x), [floats(2, 3, 2, 5, 4)]),
    ],
    ids=["no head axis", "causal", "masked", "no batch", "rank 5"],
)  # fmt: skip
def test_attention_of_any_rank_is_lowered(body, inputs):
    module = Small(body)
    agree(module, lowered(module, inputs))


def rotated(self, x):
    pairs = torch.view_as_complex(self.linear(x).reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * self.turns[: x.shape[1]][None]).flatten(2)


def test_complex_rotations_are_lowered():
    module = Small(rotated, turns=torch.polar(torch.ones(64, 2), floats(64, 2)))
    agree(module, lowered(module, [X]))


def test_a_mixture_of_experts_is_lowered_with_one_product_an_expert():
    from transformers import MixtralConfig, MixtralModel

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=53, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=64,
        use_cache=False,
    )  # fmt: skip
    module = MixtralModel(config).eval()
    program = lowered(module, {"input_ids": ids(3, 11)})
    with torch.no_grad():
        agree(module, program, 5e-5, lambda given: module(input_ids=given).last_hidden_state)
    assert [node.op_type for node in program.graph.graph].count("MatMul") >= 6


def test_an_operator_that_onnx_has_no_spelling_for_is_named_in_a_plain_sentence():
    module = Small(lambda self, x: torch.special.bessel_j0(self.linear(x)))
    run = Pipeline.parse("to-onnx").run(capture(module, inputs=[X]))
    assert str(run.steps[0].error) == (
        "the operator prims.bessel_j0.default (node bessel_j0) cannot be written in ONNX: "
        "ONNX has nothing like it and torch's exporter no other spelling"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_encoder_layers_of_other_precisions_are_lowered(dtype):
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().to(dtype)
    program = lowered(module, [floats(3, 11, 8).to(dtype)], "to-onnx,fold-constants")
    wide = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    wide.load_state_dict(module.state_dict())
    keep = torch.float32 if dtype == torch.bfloat16 else dtype
    agree(module, program, 2e-3 if dtype == torch.float16 else 1e-5, lambda x: wide(x.float()).to(keep))

"""quantize-weights and quantize-gobo over the zoo and both exporters: all is packed, and exactly."""

import re
import warnings

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.codes.centroids import dictionary
from graphwright.passes.quantize.codes.rounding import Scheme
from graphwright.passes.quantize.codes.stored import find
from graphwright.passes.quantize.fit.coding import without_data
from graphwright.passes.quantize.quantize_gobo import QuantizeGobo
from graphwright.passes.quantize.quantize_weights import QuantizeWeights
from graphwright.tools.build.presets import chain
from zoo import ARCHITECTURES, onnx_program

pytestmark = pytest.mark.slow  # most of it the export of the zoo

# Why a product or a lookup of the zoo stays in float. Sizes are the models' own.
REASONS = {
    "its weight is only",  # token types, position biases
    "its weight is computed by",  # DeBERTa's relative positions: products of constants
}


def simulated(program, code):
    twin = program.clone()
    for stored in find(twin)[0]:
        stored.value.const_value = ir.Tensor(stored.restored(code(stored).floats()), name=stored.name)
    return twin


def agree(found, expected, feeds, tolerance=2e-5):
    for a, b in zip(execute(found, feeds), execute(expected, feeds), strict=True):
        for name, reference in b.items():
            known = np.isfinite(reference)
            assert (np.isfinite(a[name]) == known).all()
            scale = max(1.0, float(np.abs(reference[known]).max(initial=0)))
            np.testing.assert_allclose(a[name][known], reference[known], rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_what_its_simulated_weights_give(name):
    program = onnx_program(name)
    feeds = probes(program, 0)[:4]
    before = weight_bytes(program)
    for bits, method, group in ((4, "rtn", 16), (3, "hqq", 32)):
        result = QuantizeWeights(bits=bits, method=method, group=group).run(program.clone(), Context())
        twin = simulated(
            program, lambda w, b=bits, m=method, g=group: without_data(w, m, Scheme(b, g).of_rows(w.shape[1]))
        )
        agree(result.program, twin, feeds)
        assert result.statistics["weights packed"] == len(find(program)[0])
        reasons = {re.search("stays as it is, (.*)", note)[1] for note in result.notes}
        assert all(any(reason.startswith(known) for known in REASONS) for reason in reasons)
    gobo = QuantizeGobo().run(program.clone(), Context())
    agree(gobo.program, simulated(program, lambda w: dictionary(w.matrix(), 3)), feeds)
    assert weight_bytes(result.program) < 0.7 * before


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "llama", "t5", "squeezebert"])
def test_methods_that_fit_lose_less_than_rounding(name):
    program = onnx_program(name)
    feeds = [feed for seed in range(3) for feed in probes(program, seed)]
    exact = execute(program, feeds)

    def loss(method):
        options = {"bits": 4, "embeddings": 0, "group": 16, "method": method}
        found = QuantizeWeights(**options).run(program.clone(), Context(calibration=feeds))
        total = 0.0
        for a, b in zip(execute(found.program, feeds), exact, strict=True):
            for output, reference in b.items():
                known = np.isfinite(reference) & np.isfinite(a[output])
                total += float(np.square(a[output][known] - reference[known]).sum(dtype=np.float64))
        return total

    plain = loss("rtn")
    assert loss("gptq") < 0.9 * plain
    assert loss("awq") < plain


def exported(folder, dynamo):
    """A small BERT by either of PyTorch's exporters, read back."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=72,
        max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.BertModel(config, add_pooling_layer=False).eval()

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids, attention_mask).last_hidden_state

    ids = torch.arange(16).reshape(2, 8)
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["hidden"]}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=64)}
    path = folder / f"{dynamo}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            extra = {"dynamo": True, "dynamic_shapes": (axes, axes), "verbose": False}
        else:
            extra = {"dynamo": False, "opset_version": 17}
            extra["dynamic_axes"] = {
                name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")
            }
        torch.onnx.export(Encoder().eval(), (ids, torch.ones_like(ids)), path, **names, **extra)
    return Pipeline.parse("fold-constants,eliminate-identities").run(capture(path)).program


def test_both_exporters_spellings_are_packed_whole(tmp_path):
    sizes = []
    for dynamo in (True, False):
        program = exported(tmp_path, dynamo)
        found, _ = find(program)
        # Words and positions; q, k, v, o, up and down in two layers.
        assert sorted(w.shape for w in found) == sorted(
            [(101, 32), (64, 32)] + 2 * (4 * [(32, 32)] + [(72, 32), (32, 72)])
        )
        result = QuantizeWeights(bits=4).run(program.clone(), Context())
        assert result.statistics["products of packed weights"] == 12
        assert result.statistics["lookups of packed rows"] == 2
        twin = simulated(program, lambda w: without_data(w, "rtn", Scheme(4, 32).of_rows(w.shape[1])))
        agree(result.program, twin, probes(program, 0)[:4])
        stored = result.program.graph.graph.initializers
        packed = [name for name in stored if re.search(r"\.(codes|scale|zero)(_\d+)?$", name)]
        sizes.append(sum(stored[name].const_value.nbytes for name in stored if name in packed))
    assert sizes[0] == sizes[1] > 0


def test_fused_kernels_get_their_weights_decoded():
    """Tables inside EmbedLayerNormalization, beside merged q/k/v products."""
    program = chain("exact", onnx_program("bert"))[0].run(onnx_program("bert")).program
    kinds = {use.kind for stored in find(program)[0] for use in stored.uses}
    assert kinds == {"product", "table"}
    for bits in (4, 3):
        result = QuantizeWeights(bits=bits).run(program.clone(), Context())
        agree(
            result.program,
            simulated(program, lambda w, b=bits: without_data(w, "rtn", Scheme(b, 32).of_rows(w.shape[1]))),
            probes(program, 0),
        )
        assert not any(
            v.const_value.dtype == ir.DataType.FLOAT
            and v.const_value.nbytes > 16 * 32 * 4
            and not k.startswith("decode.")
            for k, v in result.program.graph.graph.initializers.items()
        )

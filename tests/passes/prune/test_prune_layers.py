"""prune-layers, against models whose layers were deleted in PyTorch."""

import copy

import numpy as np
import pytest
import torch
import transformers
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.prune_layers import PruneLayers
from torch import nn
from zoo import ARCHITECTURES, fx_program
from zoo.handwritten import CausalBlock, Clipped


def without(module, kept):
    """The module with these layers only, in every outermost list of two layers; T5's relative positions and
    ALBERT's number of repeats, which PyTorch keeps elsewhere, follow."""
    module = copy.deepcopy(module)
    lists = {name: m for name, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m) == 2}
    outer = [m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    for layers in outer:
        first = getattr(layers[0], "layer", [None])[0]
        if kept[0] and hasattr(first, "SelfAttention"):
            attention = layers[kept[0]].layer[0].SelfAttention
            attention.has_relative_attention_bias = True
            attention.relative_attention_bias = first.SelfAttention.relative_attention_bias
        keep = [layers[i] for i in kept]
        del layers[:]
        layers.extend(keep)
    if not outer:
        module.config.num_hidden_layers = len(kept)
    return module


def close(program, pruned, module, inputs):
    """Outputs of the pruned program and of a module, on the inputs the module takes."""
    feed = {spec.name: inputs[spec.name].numpy() for spec in program.inputs}
    found = execute(pruned, [feed])[0]
    with torch.no_grad():
        expected = module(**inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(dict(expected).values())
    tensors = [t for t in torch.utils._pytree.tree_leaves(expected) if isinstance(t, torch.Tensor)]
    assert len(tensors) == len(found)
    for reference, name in zip(tensors, program.outputs, strict=True):
        np.testing.assert_allclose(found[name], reference.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_equals_the_model_without_the_layer(name, kept):
    case, program = ARCHITECTURES[name], fx_program(name)
    result = PruneLayers(layers=(kept,)).run(program.clone(), Context())
    assert result.modified
    close(program, result.program, without(case.build(), [kept]), case.inputs())
    shared = name == "albert"
    assert (weight_bytes(result.program) == weight_bytes(program)) == shared
    left = recognise(view(result.program)).summary()["attention"]
    assert 2 * left == recognise(view(program)).summary()["attention"]
    names = {name for name, _ in program.graph.named_parameters()}
    assert {name for name, _ in result.program.graph.named_parameters()} <= names


def test_t5s_relative_positions_stay_for_the_layers_that_are_left():
    result = PruneLayers(layers=(1,)).run(fx_program("t5").clone(), Context())
    names = [name for name, _ in result.program.graph.named_parameters() if ".block.0." in name]
    table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert names == [f"encoder.{table}", f"decoder.{table}"]


def test_one_of_two_stacks():
    """BART's decoder alone loses a layer."""
    result = PruneLayers(layers=(1,), stack="decoder").run(fx_program("bart").clone(), Context())
    case = ARCHITECTURES["bart"]
    module = case.build()
    module.decoder.layers = module.decoder.layers[1:]
    close(fx_program("bart"), result.program, module, case.inputs())
    assert result.statistics["layers kept"] == "1 out of 0 to 1"


def test_a_head_with_a_sum_of_its_own_is_no_layer():
    """SigLIP pools by an attention and a feed-forward behind its layers."""
    config = transformers.SiglipVisionConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=72, image_size=32,
        patch_size=8,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.SiglipVisionModel(config).eval()
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
    program = capture(module, inputs=inputs)
    result = PruneLayers(layers=(0, 2)).run(program.clone(), Context())
    assert result.statistics["layers kept"] == "0, 2 out of 0 to 2"
    layers = next(part for part in module.modules() if isinstance(part, nn.ModuleList))
    del layers[1]
    close(program, result.program, module, inputs)


class Deep(nn.Module):
    """Six pre-norm blocks of very different size of effect. inner: gives what each attends to as well."""

    def __init__(self, inner=False):
        super().__init__()
        torch.manual_seed(0)
        self.inner = inner
        self.wte, self.wpe = nn.Embedding(83, 36), nn.Embedding(40, 36)
        self.blocks = nn.ModuleList(CausalBlock(36, 3, 80, 40, True) for _ in range(6))
        for block, size in zip(self.blocks, (3.0, 0.2, 1.5, 0.1, 2.0, 0.4), strict=True):
            block.c_proj.weight.data *= size
            block.down.weight.data *= size

    def forward(self, input_ids):
        x = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[1]))
        inner = torch.zeros(())
        for block in self.blocks:
            attended = block.attend(block.ln_1(x))
            inner = inner * 2 + attended
            x = x + attended
            x = x + block.down(nn.functional.gelu(block.up(block.ln_2(x)), approximate="tanh"))
        return torch.stack([x, inner]) if self.inner else x


IDS = {"input_ids": torch.arange(27).reshape(3, 9)}


@pytest.fixture(scope="module")
def deep():
    return capture(Deep().eval(), inputs=IDS)


def only(kept):
    module = Deep().eval()
    module.blocks = nn.ModuleList(module.blocks[i] for i in kept)
    return module


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [1, 3, 5]),
        ({"keep": 4}, [0, 2, 3, 5]),
        ({"keep": 2}, [2, 5]),
        ({"keep": 2, "choose": "bottom"}, [0, 1]),
        ({"keep": 2, "choose": "top"}, [4, 5]),
        ({"layers": (5, 1)}, [1, 5]),
    ],
)
def test_which_layers_stay(deep, options, kept):
    result = PruneLayers(**options).run(deep.clone(), Context())
    close(deep, result.program, only(kept), IDS)
    assert result.statistics["layers kept"] == f"{', '.join(map(str, kept))} out of 0 to 5"


def test_as_many_layers_as_there_are_change_nothing(deep):
    result = PruneLayers(keep=9).run(deep.clone(), Context())
    assert not result.modified
    assert result.program.fingerprint() == deep.fingerprint()


def test_a_search_takes_away_what_moves_the_outputs_least(deep):
    """Against the same greedy search over PyTorch modules."""
    feeds = probes(deep, 0)

    def quality(kept):
        cosines = []
        for feed in feeds:
            ids = torch.from_numpy(feed["input_ids"])
            with torch.no_grad():
                a, b = (m(ids).flatten(0, 1).double() for m in (Deep().eval(), only(kept)))
            cosines.append(torch.cosine_similarity(a, b))
        return torch.cat(cosines).mean()

    kept = list(range(6))
    while len(kept) > 3:
        kept = max(([k for k in kept if k != gone] for gone in kept), key=quality)
    result = PruneLayers(keep=3, choose="search").run(deep.clone(), Context(calibration=feeds))
    assert result.statistics["layers kept"] == f"{', '.join(map(str, kept))} out of 0 to 5"


def test_a_wider_search_finds_what_a_greedy_one_misses(deep):
    """By a score under which the best pair to lose, 1 and 4, begins with no best single layer."""
    scores = {(0,): 5, (1,): 4, (4,): 3, (0, 1): 2, (0, 4): 2, (1, 4): 9}

    def score(program):
        left = {int(name.split(".")[1]) for name, _ in program.graph.named_parameters() if "blocks" in name}
        return scores.get(tuple(sorted(set(range(6)) - left)), 0)

    greedy, wide = (
        PruneLayers(keep=4, choose="search", beam=beam).run(deep.clone(), Context(score=score))
        for beam in (1, 2)
    )
    assert greedy.statistics["layers kept"] == "2, 3, 4, 5 out of 0 to 5"
    assert wide.statistics["layers kept"] == "0, 2, 3, 5 out of 0 to 5"


def test_pruned_layers_can_be_pruned_again_and_lowered(deep):
    run = Pipeline.parse("prune-layers,prune-layers{keep=1,choose=top},to-onnx").run(deep, Context())
    assert run.ok, [step.error for step in run.steps]
    close(deep, run.program, only([5]), IDS)


def test_one_layer_may_be_refused(deep):
    context = Context(allow=lambda rewrite: rewrite != "remove layer 2")
    close(deep, PruneLayers().run(deep.clone(), context).program, only([1, 2, 3, 5]), IDS)


def test_a_layer_whose_result_is_used_elsewhere_is_refused_by_name():
    program = capture(Deep(inner=True).eval(), inputs=IDS)
    with pytest.raises(PassError, match=r"cannot go: .* which it computes, is used outside it, by add_"):
        PruneLayers().run(program.clone(), Context())


def test_what_cannot_be_done_is_said(deep):
    with pytest.raises(PassError, match="no layer 6: the stack has layers 0 to 5"):
        PruneLayers(layers=(0, 6)).run(deep.clone(), Context())
    with pytest.raises(PassError, match="no layers were found in a decoder: there is 1 stack of layers"):
        PruneLayers(stack="decoder").run(deep.clone(), Context())
    with pytest.raises(PassError, match="cannot be tried without data"):
        PruneLayers(choose="search").run(deep.clone(), Context())
    with pytest.raises(PassError, match=r"no layers were found in the model: .* come from clip"):
        PruneLayers().run(capture(Clipped().eval(), inputs={"x": torch.randn(2, 5, 12)}), Context())


@pytest.mark.parametrize("text", ["keep=-1", "beam=0", "layers=(1,1)", "layers=(-1,)", "layers=(1,),keep=2"])
def test_bad_options(text):
    with pytest.raises(PipelineError):
        Pipeline.parse(f"prune-layers{{{text}}}")

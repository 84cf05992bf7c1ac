"""tie-layers, against models whose layers were given the same weights in PyTorch."""

import copy

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import parameters
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.share.tie_layers import TieLayers
from handmade import golden
from pruning import run
from sharing import IDS, Blocks, blocks
from torch import nn
from zoo import ARCHITECTURES, fx_program

MODELS = ("bert", "roberta", "mpnet", "mobilebert", "modernbert", "t5", "gpt2", "llama", "vit", "squeezebert")
SUBLAYERS = {
    "attention": ("attention.self", "attention.output.dense"),
    "ffn": ("intermediate", "output.dense"),
}


def layers_of(module):
    """The outermost lists of two layers."""
    lists = {name: m for name, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m) == 2}
    return [m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]


def tied(module, keep=lambda name: True, mean=False):
    """The module, its second layers with what they have in common with the first ones; T5's table of relative
    positions is the first one's alone."""
    module = copy.deepcopy(module)
    for first, second in layers_of(module):
        theirs = dict(first.named_parameters())
        for name, parameter in second.named_parameters():
            if name in theirs and keep(name):
                value = (theirs[name] + parameter) / 2 if mean else theirs[name]
                theirs[name].data, parameter.data = value.data, value.data.clone()
    return module


def compare(program, module, inputs):
    feed = {spec.name: inputs[spec.name].numpy() for spec in program.inputs}
    found = execute(program, [feed])[0]
    with torch.no_grad():
        expected = module(**inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(dict(expected).values())
    tensors = [t for t in torch.utils._pytree.tree_leaves(expected) if isinstance(t, torch.Tensor)]
    for reference, name in zip(tensors, program.outputs, strict=True):
        np.testing.assert_allclose(found[name], reference.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_all_of_a_layer_is_shared(name):
    case, program = ARCHITECTURES[name], fx_program(name)
    result = TieLayers().run(program.clone(), Context())
    compare(result.program, tied(case.build()), case.inputs())
    second = [n for n, _ in result.program.graph.named_parameters() if ".1." in n and "norm" not in n]
    inner = ("layer.1.DenseReluDense", "layer.1.EncDecAttention")  # T5: of the first layer's parts
    assert [n for n in second if not any(part in n for part in inner)] == []
    lost = sum(p.numel() for _, p in program.graph.named_parameters()) - parameters(result.program)
    shared = sum(
        sum(p.numel() for n, p in second.named_parameters() if n in dict(first.named_parameters()))
        for first, second in layers_of(case.build())
    )
    assert lost == shared


@pytest.mark.parametrize("what", ["attention", "ffn"])
def test_one_sublayer_is_shared_and_the_norms_are_not(what):
    program, case = fx_program("bert"), ARCHITECTURES["bert"]
    result = TieLayers(what=what).run(program.clone(), Context())
    compare(result.program, tied(case.build(), lambda name: name.startswith(SUBLAYERS[what])), case.inputs())
    left = {n for n, _ in result.program.graph.named_parameters() if ".1." in n}
    assert {n.split(".", 3)[3] for n in left} == {
        n for n, _ in case.build().encoder.layer[1].named_parameters() if not n.startswith(SUBLAYERS[what])
    }


def test_the_mean_of_all():
    case = ARCHITECTURES["gpt2"]
    result = TieLayers(init="mean").run(fx_program("gpt2").clone(), Context())
    compare(result.program, tied(case.build(), mean=True), case.inputs())


@pytest.mark.parametrize(
    ("options", "of"),
    [
        ({"groups": 2}, [0, 0, 0, 1, 1, 1]),
        ({"groups": 3}, [0, 0, 1, 1, 2, 2]),
        ({"groups": 4}, [0, 0, 1, 2, 2, 3]),
        ({"groups": 3, "repeats": 2}, [0, 1, 2, 0, 1, 2]),
        ({"groups": 1, "repeats": 2}, [0, 0, 0, 0, 0, 0]),
        ({"groups": 2, "repeats": 3}, [0, 1, 0, 1, 0, 1]),
    ],
)
def test_chunks_and_runs(options, of):
    result = TieLayers(**options).run(blocks(*[40] * 6), Context())
    assert result.statistics["sets of weights"] == " ".join(map(str, of))
    module = Blocks(*[40] * 6).eval()
    module.blocks = nn.ModuleList(module.blocks[of.index(number)] for number in of)
    compare(result.program, module, IDS)
    assert parameters(result.program) == sum(p.numel() for p in module.parameters())


def test_gradients_of_a_shared_weight_are_the_sum_of_the_separate_ones():
    module = tied(ARCHITECTURES["bert"].build()).double()
    shared = copy.deepcopy(TieLayers().run(fx_program("bert").clone(), Context()).program.graph).double()
    inputs = ARCHITECTURES["bert"].inputs()
    weights = torch.randn(3, 11, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (module(**inputs).last_hidden_state * weights).sum().backward()
    (
        shared(*(inputs[n.name] for n in shared.graph.find_nodes(op="placeholder")))[0] * weights
    ).sum().backward()
    first, second = (dict(layer.named_parameters()) for layer in module.encoder.layer)
    found = dict(shared.named_parameters())
    assert len(first) == 16
    for name, parameter in first.items():
        wanted = parameter.grad + second[name].grad
        got = found[f"encoder.layer.0.{name}"].grad
        assert float((got - wanted).abs().max()) <= 1e-12 * float(wanted.abs().max()) + 1e-15


def test_what_is_shared_already_is_left_alone():
    result = TieLayers().run(fx_program("albert").clone(), Context())
    assert not result.modified
    assert result.notes == ("nothing to tie: the layers share these weights already",)
    again = TieLayers().run(TieLayers().run(fx_program("bert").clone(), Context()).program, Context())
    assert not again.modified


def test_a_set_of_one_layer_is_nothing():
    result = TieLayers(groups=2).run(fx_program("bert").clone(), Context())
    assert not result.modified
    assert result.notes == ("nothing to tie: each set is a single layer",)


def test_the_norm_that_one_layer_lacks_stays_with_the_others():
    result = TieLayers().run(fx_program("modernbert").clone(), Context())
    assert result.notes == ("layer 0 has nothing like layers.1.attn_norm.weight of layer 1",)
    assert "layers.1.attn_norm.weight" in dict(result.program.graph.named_parameters())


def test_t5s_relative_positions_stay():
    result = TieLayers().run(fx_program("t5").clone(), Context())
    left = [n for n, _ in result.program.graph.named_parameters() if "relative" in n]
    table = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert left == [f"encoder.{table}", f"decoder.{table}"]
    one = TieLayers(stack="encoder").run(fx_program("t5").clone(), Context()).program
    assert {n.partition(".")[0] for n, _ in one.graph.named_parameters() if "block.1." in n} == {"decoder"}


def test_layers_of_unequal_sizes_are_refused_by_name():
    with pytest.raises(
        PassError, match=r"layers 0 and 1 cannot share.*blocks\.0\.up\.weight \(40x36\).*56x36"
    ):
        TieLayers().run(blocks(40, 56), Context())
    done = TieLayers(what="attention").run(blocks(40, 56), Context())
    assert "blocks.1.c_attn.weight" not in dict(done.program.graph.named_parameters())
    assert TieLayers(groups=2).run(blocks(40, 40, 56, 56), Context()).modified


def test_layers_of_unequal_heads_are_refused():
    with pytest.raises(PassError, match=r"layer 0 has attention of 3 heads of 12.*attention of 4 heads of 9"):
        TieLayers(what="attention").run(blocks(40, 40, heads=(3, 4)), Context())
    assert TieLayers(what="ffn").run(blocks(40, 40, heads=(3, 4)), Context()).modified


class Crossing(nn.Module):
    """A decoder of which the second layer alone looks at the other stream."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ModuleList(nn.MultiheadAttention(24, 3, batch_first=True) for _ in range(3))
        self.ups = nn.ModuleList(nn.Linear(24, 40) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(40, 24) for _ in range(2))

    def forward(self, x, other):
        for number in range(2):
            x = x + self.first[number](x, x, x, need_weights=False)[0]
            if number:
                x = x + self.first[2](x, other, other, need_weights=False)[0]
            x = x + self.downs[number](torch.relu(self.ups[number](x)))
        return x


def test_a_layer_with_a_cross_attention_is_not_tied_to_one_without():
    x = {"x": torch.randn(2, 5, 24), "other": torch.randn(2, 7, 24)}
    program = capture(Crossing().eval(), inputs=x)
    with pytest.raises(PassError, match=r"layer 0 has attention of 3 heads of 8, and layer 1 .* and cross-"):
        TieLayers(what="attention").run(program.clone(), Context())
    assert TieLayers(what="ffn").run(program.clone(), Context()).modified


def test_no_layers_and_divisions_that_do_not_go_are_refused():
    with pytest.raises(PassError, match="no layers to tie"):
        TieLayers().run(blocks(40), Context())
    with pytest.raises(PassError, match="4 layers don't fall into 3 equal runs"):
        TieLayers(repeats=3).run(blocks(*[40] * 4), Context())
    with pytest.raises(PassError, match="groups is 3, and there are 2 layers in each of 2 runs"):
        TieLayers(groups=3, repeats=2).run(blocks(*[40] * 4), Context())
    with pytest.raises(PassError, match="no layers to tie"):
        TieLayers(stack="decoder").run(blocks(40, 40), Context())


@pytest.mark.parametrize("options", ["groups=0", "repeats=0", "rounds=0", "what=norms", "init=median"])
def test_options_that_say_nothing_are_refused(options):
    with pytest.raises(PipelineError, match=options.partition("=")[0]):
        Pipeline.parse(f"tie-layers{{{options}}}")


def test_a_program_in_codes_is_refused():
    coded = run("quantize-product{steps=0,finish=0}", fx_program("bert")).program
    with pytest.raises(PassError, match="quantized already"):
        TieLayers().run(coded, Context())


def test_golden():
    module = Blocks(40, 40).eval()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = torch.arange(parameter.numel()).reshape(parameter.shape) / (128 * (number + 1))
    program = capture(module, inputs=IDS)
    after = TieLayers(what="ffn").run(program.clone(), Context()).program
    golden("share/tie-layers", f"# before\n{text(program)}\n# after\n{text(after)}")

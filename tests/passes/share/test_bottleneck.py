"""bottleneck: a MobileBERT's layers, found again by what recognises layers, near to what they stand for."""

import re

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.blocks.stream import streams
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.footprint import parameters
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.common.outputs import distance
from graphwright.passes.manager.pipeline import Pipeline
from handmade import golden
from pruning import run
from recovery import agrees, feeds_of
from recovery import distance as apart
from torch import nn
from transformers import BertConfig, BertModel, MobileBertConfig, MobileBertModel

WIDTH, COUNT, INNER = 12, 2, 20
MODES = {  # as options spell them -> key_query_shared_bottleneck, use_bottleneck_attention
    "shared": (True, False),
    "bottleneck": (False, True),
    "input": (False, False),
}
OPTIONS = f"width={WIDTH},feed_forwards={COUNT},intermediate={INNER}"
OURS = {  # names inside of a layer
    "bottleneck.input": "bottleneck.input",
    "bottleneck.attention": "bottleneck.attention",
    "bottleneck.query": "attention.self.query",
    "bottleneck.key": "attention.self.key",
    "bottleneck.value": "attention.self.value",
    "bottleneck.joined": "attention.output",
    "bottleneck.ffn.0.up": "ffn.0.intermediate",
    "bottleneck.ffn.0.down": "ffn.0.output",
    "bottleneck.ffn.0": "ffn.0.output",
    "bottleneck.ffn.1.up": "intermediate",
    "bottleneck.ffn.1.down": "output",
    "bottleneck.ffn.1": "output",
    "bottleneck.output": "output.bottleneck",
}


def feeds(name):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(4)]


def narrow(name, options=OPTIONS, **context):
    done = run(f"bottleneck{{{options}}}", zoo.fx_program(name), **context)
    assert done.ok, done.steps[0].error
    return done


def mobilebert(mode, **settings):
    """transformers' own, with a BERT's norms and activation."""
    shared, bottleneck = MODES[mode]
    config = MobileBertConfig(
        vocab_size=101, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=INNER, max_position_embeddings=64, hidden_act="gelu", layer_norm_eps=1e-12,
        intra_bottleneck_size=WIDTH, num_feedforward_networks=COUNT, normalization_type="layer_norm",
        key_query_shared_bottleneck=shared, use_bottleneck_attention=bottleneck, trigram_input=False,
    )  # fmt: skip
    config.update(settings)
    module = MobileBertModel(config, add_pooling_layer=False).eval()
    for layer in module.encoder.layer if mode == "input" else ():  # which it offers and cannot run
        layer.attention.self.query, layer.attention.self.key = nn.Linear(32, WIDTH), nn.Linear(32, WIDTH)
    return module


def named(path):
    """Of a parameter of ours, its name in transformers' MobileBERT."""
    found = re.fullmatch(r"(encoder\.layer\.\d+)\.(.+?)(\.norm)?\.(weight|bias)", path)
    if found is None:
        return path
    layer, name, norm, leaf = found.groups()
    if name == "output.LayerNorm":
        return f"{layer}.output.bottleneck.LayerNorm.{leaf}"
    name = OURS[name]
    what = "LayerNorm" if norm else "dense"
    return f"{layer}.{name}.{leaf}" if name.startswith("attention.self") else f"{layer}.{name}.{what}.{leaf}"


@pytest.mark.parametrize("mode", list(MODES))
def test_it_is_the_layer_of_a_mobilebert(mode):
    done = narrow("bert", f"{OPTIONS},attention={mode}", calibration=feeds("bert"))
    state = done.program.graph.state_dict()
    reference = mobilebert(mode)
    for module in reference.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-12
    given = {named(path): tensor for path, tensor in state.items() if "position_ids" not in path}
    for path, tensor in given.items():
        if ".self.query." in path:  # scores keep the factor that they had for larger heads
            given[path] = tensor * (3 / 8) ** 0.5
    missing, unexpected = reference.load_state_dict(given, strict=False)
    assert not unexpected
    assert {path.partition(".")[2].partition(".")[0] for path in missing} <= {"embedding_transformation"}
    tensors = zoo.ARCHITECTURES["bert"].inputs(3, 11, seed=5)
    with torch.no_grad():
        found = done.program.graph(*(tensors[spec.name] for spec in done.program.inputs))[0]
        torch.testing.assert_close(found, reference(**tensors)[0], atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def pooled():
    config = BertConfig(
        vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=72,
        max_position_embeddings=64,
    )  # fmt: skip
    ids = torch.arange(24).reshape(3, 8)
    return capture(BertModel(config).eval(), inputs={"input_ids": ids, "attention_mask": ids * 0 + 1})


@pytest.mark.parametrize("mode", list(MODES))
def test_its_parameters_are_those_of_a_mobilebert(pooled, mode):
    rest = "factorise-embedding{rank=8},embedding-convolution{kernel=3}"
    done = run(f"bottleneck{{{OPTIONS},attention={mode}}},{rest}", pooled)
    assert done.ok, done.steps
    reference = mobilebert(mode, embedding_size=8, trigram_input=True)
    bias, pooler = 32, 32 * 33  # a bias before positions with biases of their own says nothing
    assert parameters(done.program) == sum(p.numel() for p in reference.parameters()) - bias + pooler


def facts(program):
    graph = view(program)
    blocks = recognise(graph)
    found, notes = streams(graph, blocks)
    heads = [(one.heads, one.kv_heads, one.causal, one.cross) for one in blocks.attention]
    return heads, [len(one.layers) for one in found], notes, blocks.missed


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("bert", "shared"), ("roberta", "input"), ("albert", "shared"), ("mpnet", "shared"), ("t5", "shared"),
        ("gpt2", "bottleneck"), ("vit", "shared"), ("vit", "bottleneck"),
    ],
)  # fmt: skip
def test_narrow_layers_are_found_as_layers(name, mode):
    program = zoo.fx_program(name)
    done = narrow(name, f"{OPTIONS},attention={mode}")
    assert facts(done.program) == facts(program)
    before, after = (recognise(view(one)) for one in (program, done.program))
    count = len(after.feed_forward) - len(before.feed_forward)
    of = [sum(one.of == "other" for one in blocks.residual) for blocks in (before, after)]
    assert of[1] - of[0] == count  # the stream goes on around each
    made = [one for one in after.attention if one.o.out_features == WIDTH]
    assert len(made) == count > 0
    assert [one.heads * one.head_dim for one in made] == [WIDTH] * count
    inner = [(one.width, one.input.shape[-1]) for one in after.feed_forward]
    assert inner.count((INNER, WIDTH)) == 2 * count
    assert [a.scale for a in after.attention] == pytest.approx([b.scale for b in before.attention])
    tensors = zoo.ARCHITECTURES[name].inputs(3, 11, seed=5)
    for one in (program, done.program):
        outputs = one.graph(*(tensors[spec.name] for spec in one.inputs))
        assert outputs[0].isfinite().all()


class Two(nn.Module):
    """Two layers, post-norm, of one head."""

    def __init__(self, after=None):
        super().__init__()
        self.after = after
        self.parts = nn.ModuleList(
            nn.ModuleDict(
                {"qkvo": nn.ModuleList(nn.Linear(8, 8) for _ in range(4)), "up": nn.Linear(8, 12),
                 "down": nn.Linear(12, 8), "one": nn.LayerNorm(8), "two": nn.LayerNorm(8)}
            )
            for _ in range(2)
        )  # fmt: skip

    def forward(self, x):
        more = []
        for part in self.parts:
            q, k, v, o = part["qkvo"]
            scores = (q(x) @ k(x).transpose(1, 2) / 8**0.5).softmax(-1)
            x = part["one"](x + o(scores @ v(x)))
            more.append(part["up"](x))
            x = part["two"](x + part["down"](more[-1].relu()))
        return (x, more[0]) if self.after else x


def captured(module):
    torch.manual_seed(0)
    return capture(module().eval(), inputs={"x": torch.randn(2, 3, 8)})


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        ("mobilebert", "width=12", "it is a bottleneck already, 24 of 32 features wide inside"),
        ("bert", "width=32", "a bottleneck of 32 features is no narrower than its 32"),
        ("bert", "width=10", "10 features don't fall into its 4 heads: give width=8 or 12"),
        ("llama", "width=24", "positions turn the 8 features of a head, and 4 would be left"),
        ("modernbert", "width=16", "positions turn the 8 features of a head, and 4 would be left"),
        ("gpt2", "width=12", "one product gives queries, keys and values, of one value: give attention=bott"),
        ("deberta_v2", "width=12", "more than products gives its scores"),
        ("squeezebert", "width=12", "its features are not on the last axis"),
        ("opt", "width=12", "its feed-forward does not read a norm of the sum with its attention"),
    ],
)
def test_what_cannot_be_narrow_says_why_and_stays(make, options, reason):
    program = zoo.fx_program(make)
    done = run(f"bottleneck{{{options}}}", program)
    assert isinstance(done.steps[0].error, PassError)
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_a_decoder_that_looks_at_an_encoder_stays_and_says_so():
    notes = narrow("t5").steps[0].notes
    assert sum("it has 2 attentions and 1 feed-forwards" in note for note in notes) == 2


def test_a_layer_whose_inside_is_read_elsewhere_stays():
    done = run("bottleneck{width=4,feed_forwards=2}", captured(lambda: Two(after=True)))
    assert done.ok, done.steps[0].error
    assert done.steps[0].statistics["layers made narrow"] == "1 of 1"
    assert "linear_4 inside of it is read elsewhere" in done.steps[0].notes[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("width=0", "width is 0"),
        ("feed_forwards=0", "feed_forwards is 0"),
        ("intermediate=0", "intermediate is 0"),
        ("tokens=0", "tokens is 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, reason):
    with pytest.raises(PipelineError, match=reason):
        Pipeline.parse(f"bottleneck{{{options}}}")


def test_golden():
    program = captured(Two)
    after = run("bottleneck{width=4,feed_forwards=2,intermediate=3}", program).program
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("share/bottleneck", "# before\n{}\n# after\n{}\n".format(*shown))


def lost(program, other, given):
    expected, found = ([[one.detach() for one in p.graph(*(torch.from_numpy(feed[s.name]) for s in p.inputs))]
                        for feed in given] for p in (program, other))  # fmt: skip
    return distance(program, given, expected, found)


@pytest.mark.parametrize(
    ("name", "mode", "within"),
    [("bert", "shared", 0.01), ("vit", "bottleneck", 0.001), ("albert", "shared", 0.06)],
)
def test_texts_bring_it_nearer_than_weights_alone(name, mode, within):
    program, given = zoo.fx_program(name), feeds(name)
    options = f"width=24,feed_forwards=2,attention={mode}"
    blind, seen = narrow(name, options), narrow(name, options, calibration=given)
    assert "the weights alone say what is kept" in blind.steps[0].notes[-1]
    near, far = lost(program, seen.program, given), lost(program, blind.program, given)
    assert near < within * far
    assert seen.steps[0].statistics["error of the outputs"] == pytest.approx(near, abs=1e-4)


def test_layers_that_shared_weights_share_the_new_ones():
    names = [one for one in narrow("albert").program.graph.state_dict() if "bottleneck" in one]
    assert len(names) == len(set(names)) == 2 * (8 + 2 * 2) + 2 * (3 + 2) - 2
    tied = run("tie-layers{what=ffn}", zoo.fx_program("bert")).program
    done = run(f"bottleneck{{{OPTIONS}}}", tied)
    assert done.ok, done.steps[0].error
    names = [one for one in done.program.graph.state_dict() if "bottleneck" in one]
    assert sum("ffn" in name and "norm" not in name for name in names) == 2 * 2 * 2
    assert sum("query" in name for name in names) == 2 * 2
    assert [len(one.layers) for one in recognise(view(done.program)).stack] == [2]


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("bert", "to-onnx"),
        ("bert", "prune-ffn{importance=magnitude,multiple=4}"),
        ("bert", "prune-heads{importance=magnitude}"),
        ("albert", "to-onnx,fuse-attention,remove-padding"),
    ],
)
def test_what_comes_after_finds_a_program_like_any_other(name, rest):
    data = feeds_of(zoo.fx_program(name), 6)
    first = narrow(name, calibration=data)
    done = run(rest, first.program, calibration=data, original=first.program)
    assert [step.status for step in done.steps] == ["applied"] * len(done.steps), done.steps
    agrees(first.program, done.program, rest)


def test_norms_inside_become_affine_maps():
    data = feeds_of(zoo.fx_program("bert"), 6)
    first = narrow("bert", calibration=data)
    done = run("nonorm{limit=1e9},fold-affine", first.program, calibration=data, original=first.program)
    assert [step.status for step in done.steps] == ["applied", "applied"], done.steps
    assert done.steps[0].statistics["norms replaced"] == "13 of 13"
    before, after = (recognise(view(one)).summary() for one in (first.program, done.program))
    assert [before[kind] - after[kind] for kind in ("attention", "feed_forward", "residual")] == [0, 0, 0]


def test_products_inside_are_integers_after_quantizing():
    data = feeds_of(zoo.fx_program("mpnet"), 6)
    first = narrow("mpnet", "width=16,feed_forwards=2,intermediate=24", calibration=data).program
    done = run("to-onnx,quantize-dynamic", first, calibration=data, original=first)
    assert [step.status for step in done.steps] == ["applied"] * 2, done.steps
    assert done.steps[1].statistics["products in int8"] == 2 * 11  # every one of both layers
    agrees(first, done.program, "quantize-dynamic")


def test_distilling_brings_it_nearer_and_teaches_neurons_that_gave_nothing():
    program = zoo.fx_program("bert")
    data = feeds_of(program)
    done = narrow("bert", "width=12,feed_forwards=2,intermediate=40", calibration=data)
    options = "distill{steps=30,rate=3e-3,batch=4,precision=float32}"
    taught = run(options, done.program, calibration=data, original=program)
    assert taught.ok, taught.steps
    assert apart(program, taught.program) < apart(program, done.program)
    before, after = (one.graph.state_dict() for one in (done.program, taught.program))
    for path in (one for one in after if "bottleneck" in one):
        assert not torch.equal(before[path], after[path]), path
    for path in (one for one in after if one.endswith("down.weight")):
        new = before[path].abs().amax(0) < 1e-15
        assert 4 == new.sum() < np.count_nonzero(after[path].abs().amax(0) > 1e-6)
        assert (after[path].abs().amax(0)[new] > 1e-6).all()

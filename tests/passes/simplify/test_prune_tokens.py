"""prune-tokens: tokens end behind attentions, and a text's vector depends on nothing but the text."""

import copy
import functools
import itertools
import re

import graphwright as gw
import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
import zoo
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Ratio
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.simplify.tokens.schedule import path
from handmade import golden
from pruning import run
from recovery import feeds_of
from tokens import Pooled, alone, batch, pooled
from torch import nn
from transformers import BertConfig, BertForTokenClassification

LENGTHS = (11, 7, 3, 1)
KEEP = (0.7, 0.4)


def pruned(program, options="keep=(0.7,0.4)", **context):
    done = run(f"prune-tokens{{{options}}}", program, **context)
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


@functools.cache
def cut(name="bert", how="mean", score="received"):
    return pruned(pooled(name, how), f"keep=(0.7,0.4),score={score}")


@functools.cache
def lowered(name="bert"):
    done = run("to-onnx", cut(name))
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


def vectors(program, feed):
    return execute(program, [feed])[0][program.outputs[0]]


def independent(program, left=False):
    """How far the vector of a text alone is from its vector in a padded batch."""
    feed = batch(program, LENGTHS, left)
    together = vectors(program, feed)
    rows = [vectors(program, alone(program, feed, row))[0] for row in range(len(LENGTHS))]
    return float(np.abs(together - np.array(rows)).max())


@pytest.mark.parametrize(
    ("name", "how", "score"),
    [("bert", "mean", "received"), ("bert", "first", "first"), ("albert", "first", "received"),
     ("roberta", "mean", "received"),
     ("mpnet", "mean", "received"), ("modernbert", "mean", "first"), ("t5", "mean", "first")],
)  # fmt: skip
def test_the_vector_of_a_text_does_not_depend_on_its_batch(name, how, score):
    after = cut(name, how, score)
    assert independent(after) < 1e-5
    if name in ("t5", "modernbert"):  # whose positions are relative, so that padding before a text moves none
        assert independent(after, left=True) < 1e-5


@pytest.mark.parametrize(("name", "left"), [("bert", False), ("t5", True)])
def test_nor_does_it_in_onnx_runtime_which_says_the_same(name, left):
    after = cut(name)
    fused = run("fold-constants,fuse-attention", lowered(name), gates=False)
    assert fused.steps[1].status == "applied"
    assert fused.steps[1].counted == "attentions fused 2 of 2"
    assert independent(fused.program, left) < 1e-5
    feed = batch(after, (40, 31, 17))
    np.testing.assert_allclose(vectors(fused.program, feed), vectors(after, feed), rtol=0, atol=1e-5)


def reference(module, ids, keep, score):
    """The mean of what is left of one text, computed layer by layer in float64 with NumPy's stable sort."""
    model = copy.deepcopy(module.model).double()
    x = model.embeddings(input_ids=ids, token_type_ids=torch.zeros_like(ids))
    for layer, share in zip(model.encoder.layer, keep, strict=True):
        own, heads = layer.attention.self, layer.attention.self.num_attention_heads
        q, k, v = (f(x).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (own.query, own.key, own.value))
        p = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        x = layer.attention.output((p @ v).transpose(1, 2).flatten(2), x)
        received = (p.sum((0, 1, 2)) if score == "received" else p[0, :, 0].sum(0)).detach().numpy().copy()
        received[0] = np.inf
        count = -(-ids.shape[1] * round(1000 * share) // 1000)
        best = np.sort(np.argsort(-received, kind="stable")[:count])
        x = x[:, best]
        x = layer.output(layer.intermediate(x), x)
    return x.mean(1)


@pytest.mark.parametrize(("score", "ties"), [("received", False), ("first", False), ("first", True)])
def test_it_keeps_the_tokens_that_receive_most_and_of_equals_the_first(score, ties):
    module = Pooled(zoo.ARCHITECTURES["bert"].build("sdpa"), "mean").eval()
    for layer in module.model.encoder.layer:
        layer.attention.self.query.weight.data *= 0 if ties else 6
        layer.attention.self.query.bias.data *= not ties
    feed = {"input_ids": torch.randint(5, 101, (2, 37), generator=torch.Generator().manual_seed(3))}
    feed |= {"attention_mask": torch.ones(2, 37).long(), "token_type_ids": torch.zeros(2, 37).long()}
    after = pruned(capture(module, inputs=feed), f"keep=(0.7,0.4),score={score}")
    feed = {name: value.numpy() for name, value in feed.items()}
    lowered = run("to-onnx", after).program
    for row, ids in enumerate(feed["input_ids"]):
        with torch.no_grad():
            wanted = reference(module, torch.from_numpy(ids)[None], KEEP, score).numpy()[0]
        for program in (after, lowered):
            np.testing.assert_allclose(vectors(program, feed)[row], wanted, rtol=0, atol=1e-5)


def test_layers_run_on_the_tokens_that_are_left():
    after = pruned(pooled("bert"), "keep=(0.5),layers=(0)").graph
    shapes = [str(n.meta["val"].shape[1]) for n in after.graph.nodes if "linear" in str(n.target)]
    whole = next(s for s in shapes)
    left = next(s for s in shapes if s != whole)
    assert shapes == [whole] * 4 + [left] * 8
    assert "500" in left


@pytest.mark.parametrize("how", ["first", "all"])
def test_images_have_no_padding(how):
    before = pooled("vit", how)
    after = pruned(before, "keep=(0.6,0.3)")
    feed = {"pixel_values": np.random.default_rng(0).standard_normal((3, 3, 24, 24)).astype(np.float32)}
    lowered = run("to-onnx,fold-constants", after).program
    found = vectors(after, feed)
    np.testing.assert_allclose(vectors(lowered, feed), found, rtol=0, atol=1e-5)
    assert np.abs(found - vectors(before, feed)).max() > 1e-3
    linears = [n.meta["val"].shape[1] for n in after.graph.graph.nodes if "linear" in str(n.target)]
    assert linears == [10] * 4 + [6] * 2 + [6] * 4 + [3] * 2


class Last(Pooled):
    def forward(self, **inputs):
        return self.model(**inputs)[0][:, -1]


class Everything(Pooled):
    def forward(self, **inputs):
        return self.model(**inputs)[0].mean(1)


def changed(kind, name="bert"):
    case = zoo.ARCHITECTURES[name]
    return capture(kind(case.build("sdpa"), "").eval(), inputs=case.inputs())


def labelled():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
    module = BertForTokenClassification(BertConfig(vocab_size=101, **sizes)).eval()
    return capture(module, inputs=zoo.ARCHITECTURES["bert"].inputs())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            labelled,
            "the output 'logits' has a place for every token, .* give a model whose outputs are pooled",
        ),
        (lambda: zoo.fx_program("bert"), "the output 'last_hidden_state' has a place for every token"),
        (lambda: zoo.fx_program("vit"), "the output 'last_hidden_state' has a place for every token"),
        (lambda: zoo.fx_program("gpt2"), "it looks back only"),
        (lambda: zoo.fx_program("llama"), "it looks back only"),
        (lambda: pooled("squeezebert"), "is not laid out by .batch, tokens, features., as its mask shows"),
        (lambda: pooled("deberta_v2"), "its queries and keys are laid out as .bh.ld"),
        (lambda: changed(Last), "select.* reads token -1, which may be gone"),
        (lambda: changed(Everything), "mean.* is a mean over all tokens, padding too"),
        (lambda: zoo.fx_program("t5"), "the output|a decoder reads the tokens"),
    ],
)
def test_what_needs_all_tokens_is_refused_by_name_and_stays(make, reason):
    program = make()
    done = run("prune-tokens{keep=(0.5)}", program)
    assert done.steps[0].status == "refused"
    assert isinstance(done.steps[0].error, PassError)
    assert re.search(reason, str(done.steps[0].error)), str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("layers=(1)", "one for each of keep"),
        ("keep=(0.5),latency=0.5", "give one of them"),
        ("keep=(0.5,0.7)", "ever fewer"),
        ("keep=(1.5)", "from 0.001 to 1"),
        ("keep=(0.5),layers=(0,1)", "one for each of keep"),
        ("latency=1.5", "latency is 1.5"),
        ("keep=(0.5),workload=1x9", "not keep"),
    ],
)
def test_options_that_say_nothing_are_refused(options, reason):
    with pytest.raises(PipelineError, match=reason):
        Pipeline.parse(f"prune-tokens{{{options}}}")


def test_a_layer_that_there_is_not_is_named():
    step = run("prune-tokens{keep=(0.5),layers=(7)}", pooled("bert")).steps[0]
    assert str(step.error) == "no token can go behind layer 7: tokens can go behind layers 0 to 1"


def test_few_tokens_are_told_from_one_where_the_graph_is_traced_anew():
    after = pruned(pooled("bert"), "keep=(0.2,0.1)")
    lowered = run("to-onnx", after)
    assert lowered.ok, lowered.steps[0].error
    assert independent(lowered.program) < 1e-5


def test_a_latency_is_aimed_at_by_the_clock_and_what_is_missed_is_said():
    program, asked = pooled("bert"), []

    def measure(before, after, only="", processes=1):
        asked.append(processes)
        sizes = [_elements(one, batch(program, (32,))) for one in (before, after)]
        return {"1x32": Ratio(*[sizes[0] / sizes[1]] * 3)}

    options = "prune-tokens{latency=0.3,choices=1}"
    step = run(options, program, calibration=feeds_of(program, 3, 21), measure=measure).steps[0]
    assert step.status == "applied", step.error
    assert step.statistics["tokens kept"] == "0.5 from layer 0"
    assert 1.4 < step.statistics["speed-up measured"] < 2
    assert "a call was to take 0.3 of its time, and the best that was found takes 0.6" in step.missed
    assert 3 in asked


def test_the_schedule_loses_least_of_all_that_are_fast_enough():
    rng, grid = np.random.default_rng(0), [1000, 750, 500, 250]
    every = [s for s in itertools.product(grid, repeat=4) if list(s) == sorted(s, reverse=True)]
    for _ in range(20):
        lost = [{1000: 0.0, **dict(zip(grid[1:], np.cumsum(rng.random(3)), strict=True))} for _ in range(4)]
        saved = dict(zip(grid, (0.0, *np.cumsum(rng.random(3))), strict=True))
        gained = lambda number, above, share, saved=saved: saved[above] + 0.5 * (number + 1) * saved[share]

        def sums(shares, lost=lost, gained=gained):
            """(loss, gain)"""
            steps = list(zip(range(4), [1000, *shares], shares, strict=False))
            loss = sum(lost[n][share] - lost[n][above] for n, above, share in steps)
            return loss, sum(gained(*step) for step in steps)

        most = max(gain for _, gain in map(sums, every))
        for part in (0.2, 0.5, 0.8):
            loss, gain = sums(path(grid, lost, gained, part * most))
            assert gain >= part * most
            # Sums are told apart to a thousandth of what is needed, once a layer.
            assert (
                loss <= min(cost for cost, found in map(sums, every) if found >= 1.004 * part * most) + 1e-12
            )
        assert sums(path(grid, lost, gained, 2 * most))[1] == pytest.approx(most)


def _elements(program, feed):
    """Rows that the products with weights are given, times the weights' sizes: a clock that never errs."""
    model = program.clone().graph
    products = [n for n in model.graph if n.op_type == "MatMul" and n.inputs[1].is_initializer()]
    weights = [int(np.prod(n.inputs[1].shape.numpy())) for n in products]
    model.graph.outputs[:] = [n.outputs[0] for n in products]
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    found = session.run(None, feed)
    return sum(out.shape[0] * out.shape[1] * size for out, size in zip(found, weights, strict=True))


@pytest.mark.parametrize(
    "rest",
    [
        "prune-ffn{ratio=0.5},prune-heads{ratio=0.5},to-onnx",
        "to-onnx,fuse-attention,quantize-dynamic",
        "to-onnx,fold-constants,fuse-qkv,remove-padding",
    ],
)
def test_what_comes_after_finds_a_program_like_any_other(rest):
    after = cut()
    program, rest = (lowered(), rest[8:]) if rest.startswith("to-onnx,") else (after, rest)
    done = run(rest, program, calibration=feeds_of(after, 4), gates=False)
    assert done.ok, [step.error for step in done.steps]
    assert all(step.status in ("applied", "no change") for step in done.steps)
    if "remove-padding" in rest:
        feed = batch(after, LENGTHS)
        np.testing.assert_allclose(vectors(done.program, feed), vectors(after, feed), rtol=0, atol=1e-5)


def test_what_was_cut_before_is_ranked_as_well_and_teaching_brings_outputs_back():
    program = pooled("bert")
    smaller = run("prune-heads{ratio=0.5,importance=random},tie-layers{what=ffn}", program).program
    assert independent(pruned(smaller)) < 1e-5
    feeds = feeds_of(program, 8)
    options = "distill{steps=40,rate=3e-3,batch=4,precision=float32}"
    done = run(f"prune-tokens{{keep=(0.5,0.3)}},{options}", program, calibration=feeds, original=program)
    assert done.ok, [step.error for step in done.steps]
    first = pruned(program, "keep=(0.5,0.3)")
    away = [
        sum(float((_output(one, f) - _output(program, f)).square().mean()) for f in feeds)
        for one in (first, done.program)
    ]
    assert away[1] < 0.8 * away[0]


def _output(program, feed):
    with torch.no_grad():
        return program.graph(*arguments(program, feed))[0]


class Tiny(nn.Module):
    """One head, post-norm, a mean over the mask."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, input_ids, attention_mask):
        x = self.words(input_ids)
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mask = attention_mask[:, None, None, :] != 0
        context = nn.functional.scaled_dot_product_attention(q, k, v, mask)
        x = self.norm(x + self.o(context.transpose(1, 2).flatten(2)))
        x = x + self.down(self.up(x).relu())
        kept = attention_mask[..., None].float()
        return (x * kept).sum(1) / kept.sum(1)


def test_golden():
    torch.manual_seed(0)
    ids = torch.arange(12).reshape(3, 4)
    program = capture(Tiny().eval(), inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, pruned(program, "keep=(0.5)"))]
    golden("simplify/prune-tokens", "# before\n{}\n# after\n{}\n".format(*shown))


@pytest.mark.slow
def test_a_compiled_function_keeps_the_same_tokens(tmp_path):
    after = cut()
    done = run("fold-constants,simplify-mask,fuse-layer-norm", lowered(), gates=False)
    built = Tvm().build(done.program, threads=1, buckets=[{"batch": 4, "length": 11}])
    compiled = gw.load(write_compiled(tmp_path / "compiled", built))
    feed = batch(after, LENGTHS)
    together = compiled.run(feed)["output"]
    np.testing.assert_allclose(together, vectors(after, feed), rtol=0, atol=1e-5)
    rows = [compiled.run(alone(after, feed, row))["output"][0] for row in range(len(LENGTHS))]
    np.testing.assert_allclose(np.array(rows), together, rtol=0, atol=1e-5)

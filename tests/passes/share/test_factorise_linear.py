"""factorise-linear: the best two products for what a layer is given, wherever its weight is used."""

import re

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes, weights
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Ratio
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.share.low_rank.truncated import spectrum
from handmade import golden
from pruning import run
from recovery import agrees, distance, feeds_of
from torch import nn

RANK = 8


def feeds(name):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(3)]


def factorised(name, options=f"rank={RANK}", **context):
    return run(f"factorise-linear{{{options}}}", zoo.fx_program(name), **context)


def seen_by(module, given):
    """What each linear layer is given at real tokens, (rows, features), by the first tensor that it reads."""
    rows, first, alive = {}, {}, []

    def look(part, args):
        alive.append(args[0])  # so that no other tensor gets its id
        first.setdefault(part, id(args[0]))
        rows.setdefault(part, []).append(args[0].detach().double()[kept].reshape(-1, args[0].shape[-1]))

    linear = [m for m in module.modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    hooks = [part.register_forward_pre_hook(look) for part in linear]
    for feed in given:
        kept = torch.from_numpy(feed["attention_mask"] != 0) if "attention_mask" in feed else ...
        with torch.no_grad():
            module(**{k: torch.from_numpy(v) for k, v in feed.items()})
    for hook in hooks:
        hook.remove()
    table = getattr(module.get_input_embeddings(), "weight", None)  # a head that reads it stays
    groups = {}
    for part, found in rows.items():
        if part.weight is not table:
            groups.setdefault(first[part], []).append((part, torch.cat(found).numpy()))
    return groups.values()


def rounded(module, given):
    """Every linear layer's weight as the best of RANK for what it is given, by NumPy; those that are given
    one tensor together."""
    for group in seen_by(module, given):
        x = group[0][1]
        biased = all(part.bias is not None for part, _ in group)
        mean = x.mean(0) if biased else np.zeros(x.shape[1])
        x = x - mean
        turned = [not isinstance(part, nn.Linear) for part, _ in group]
        weights = [part.weight.detach().double().numpy() for part, _ in group]
        weights = [w.T if t else w for w, t in zip(weights, turned, strict=True)]
        stack = np.concatenate(weights)
        pull = 0.01 * np.square(x).sum(0).mean()
        _, _, v = np.linalg.svd(np.concatenate([x, np.sqrt(pull) * np.eye(x.shape[1])]) @ stack.T)
        best = v[:RANK].T @ (v[:RANK] @ stack)
        pieces = np.split(best, np.cumsum([len(w) for w in weights])[:-1])
        for (part, _), t, piece in zip(group, turned, pieces, strict=True):
            new = torch.from_numpy(piece.T.copy() if t else piece)
            if biased:
                less = part.weight.detach().double() - new
                part.bias.data += torch.from_numpy(mean) @ (less if t else less.T)
            part.weight.data.copy_(new)


def facts(program):
    blocks = recognise(view(program))
    return (
        blocks.summary(),
        [(a.heads, a.kv_heads, a.cross, a.causal) for a in blocks.attention],
        [norm.position for norm in blocks.norm],
        [residual.of for residual in blocks.residual],
        [len(stack.layers) for stack in blocks.stack],
    )


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "albert", "mpnet", "mobilebert", "modernbert", "gpt2", "llama", "vit"]
)
def test_it_is_the_module_with_the_best_weights_for_its_inputs(name):
    case, program, given = zoo.ARCHITECTURES[name], zoo.fx_program(name), feeds(name)
    if name == "mobilebert":  # its embeddings look at the tokens beside them, padding included
        given = [{**feed, "attention_mask": np.ones_like(feed["attention_mask"])} for feed in given]
    done = factorised(name, calibration=given)
    assert done.ok, done.steps[0].error
    module = case.build(case.attns[-1])
    rounded(module, given)
    tensors = case.inputs(3, 11, seed=5)
    with torch.no_grad():
        expected = module(**tensors)[program.outputs[0]]
        found = done.program.graph(*(tensors[spec.name] for spec in program.inputs))[0]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert facts(program) == facts(done.program)


def test_the_error_on_what_it_is_given_is_what_the_smaller_singular_values_hold():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 20)) @ rng.standard_normal((20, 20)) * rng.random(20)
    weight = rng.standard_normal((30, 20))
    found = spectrum(weight, x.T @ x, damping=1e-13)
    plain = spectrum(weight, None, damping=0.01)
    values = np.linalg.svd(x @ weight.T, compute_uv=False) ** 2

    def lost(wide, narrow):
        return float(np.square(x @ (weight - wide @ narrow).T).sum())

    for rank in (1, 5, 12, 19):
        assert lost(*found.factors(rank)) == pytest.approx(values[rank:].sum(), rel=1e-7)
        assert found.lost(rank) == pytest.approx(values[rank:].sum() / values.sum(), rel=1e-7)
        assert lost(*found.factors(rank)) < 0.9 * lost(*plain.factors(rank))
        wide, narrow = plain.factors(rank)
        tail = np.linalg.svd(weight, compute_uv=False)[rank:]
        assert np.square(weight - wide @ narrow).sum() == pytest.approx(np.square(tail).sum(), rel=1e-10)
    for energy in (0.3, 0.9, 0.999):
        rank = found.rank(energy)
        assert found.lost(rank) <= 1 - energy + 1e-9
        assert found.lost(rank - 1) > 1 - energy


def test_texts_too_few_to_tell_leave_the_rest_to_the_weights():
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((3, 20)), rng.standard_normal((30, 20))
    wide, narrow = spectrum(weight, x.T @ x, damping=0.01).factors(6)
    np.testing.assert_allclose(x @ (wide @ narrow).T, x @ weight.T, atol=0.2)
    assert np.linalg.matrix_rank(wide @ narrow) == 6


def test_layers_keep_the_share_that_was_asked_for_or_stay():
    done = factorised("bert", "energy=0.95", calibration=feeds("bert"))
    assert done.ok
    step = done.steps[0]
    least = float(str(step.statistics["energy kept"]).split()[0])
    assert least >= 0.95
    stayed = [note for note in step.notes if "no smaller than its" in note]
    assert len(stayed) + int(str(step.statistics["weights factorised"]).split()[0]) in range(7, 13)


def test_bytes_are_those_of_the_two_products_and_shared_weights_count_once():
    program = zoo.fx_program("albert")
    step = (done := factorised("albert", calibration=feeds("albert"))).steps[0]
    sizes = [(96, 32), (32, 32), (72, 32), (32, 72), (32, 20)]  # q, k, v; o; up; down; of the embeddings
    assert step.statistics["bytes before"] == 4 * sum(a * b for a, b in sizes)
    assert step.statistics["bytes"] == 4 * RANK * sum(a + b for a, b in sizes)
    saved = step.statistics["bytes before"] - step.statistics["bytes"]
    assert weight_bytes(program) - weight_bytes(done.program) == saved
    assert step.statistics["weights factorised"] == "7 of 7"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("rank=0", "one feature or more"),
        ("energy=1.0", "above 0 and below 1"),
        ("rank=4,energy=0.5", "rank and energy both say how much is kept: give one of them"),
        ("energy=0.5,latency=0.5", "energy and latency both say how much is kept: give one of them"),
        ("latency=1.0", "above 0 and below 1"),
        ("workload=1x8", "says what a latency is of"),
        ("latency=0.5,choices=0", "at least one rank is timed"),
        ("damping=0.0", "damping is 0"),
        ("tokens=0", "at least one is needed"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, reason):
    with pytest.raises(PipelineError, match=reason):
        Pipeline.parse(f"factorise-linear{{{options}}}")


def test_a_latency_wants_texts_and_something_to_measure():
    for context, missing in (
        ({"calibration": feeds("bert")}, "measure"),
        ({"measure": Clock()}, "calibration"),
    ):
        with pytest.raises(PipelineError, match=missing):
            factorised("bert", "latency=0.5", **context)


@pytest.mark.parametrize(
    ("rank", "reason"),
    [(40, "its rank is 32 at most, and 40 was asked for"), (30, "two products of rank 30 are no smaller")],
)
def test_a_rank_that_is_of_no_use_is_refused(rank, reason):
    program = zoo.fx_program("bert")
    done = factorised("bert", f"rank={rank}")
    assert isinstance(done.steps[0].error, PassError)
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_convolutions_tables_and_what_is_of_low_rank_already_stay_and_say_why():
    notes = factorised("squeezebert").steps[0].notes
    assert any("post_attention.conv1d.weight stays, it is a convolution" in note for note in notes)
    assert any("it is a table of tokens too" in note for note in factorised("gpt2").steps[0].notes)
    again = run("factorise-linear{rank=4}", factorised("bert").program).steps[0]
    assert "it is of low rank already" in str(again.error)


class Clock:
    """A program takes a tick for each byte of its weights, and many more if the layer `down` is two."""

    def __init__(self):
        self.calls = 0

    def __call__(self, before, after, only=None, processes=1):
        self.calls += 1
        ratio = self.ticks(before) / self.ticks(after)
        return {"1x8": Ratio(ratio, ratio, ratio)}

    def ticks(self, program):
        names = program.graph.graph.initializers
        slow = sum("down.reduction" in name for name in names)
        return sum(weights(program).values()) + 50_000 * slow


class UpDown(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(24, 40), nn.Linear(40, 24)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(24, 20), nn.Linear(24, 16, bias=False)

    def forward(self, x):
        return self.a(x), self.b(x)


def captured(module):
    torch.manual_seed(0)
    return capture(module().eval(), inputs={"x": torch.randn(2, 3, 24)})


def test_what_measures_slower_is_left_alone_and_chosen_once():
    clock, chosen, program = Clock(), {}, captured(UpDown)
    for _ in range(2):  # the second run, of another graph of a bundle, asks nothing
        step = run("factorise-linear{rank=4}", program, measure=clock, chosen=chosen).steps[0]
        assert step.rewrites == ("factorise up.weight to 4",)
        assert clock.calls == 2
        assert any("1 of 24x40, down.weight the first, stay" in note for note in step.notes)
    hurried = run("factorise-linear{rank=4}", program, measure=clock, gates=False).steps[0]
    assert len(hurried.rewrites) == 2
    assert clock.calls == 2


class OneBias(UpDown):
    """What is added to one layer's products is added once more at the end."""

    def forward(self, x):
        return super().forward(x + 2) + self.down.bias


def test_a_bias_that_something_else_reads_stays_for_that():
    program = captured(OneBias)
    rng = np.random.default_rng(2)
    data = [{"x": rng.standard_normal((4, 3, 24)).astype(np.float32)} for _ in range(30)]
    chosen = {"allow": lambda rewrite: rewrite.startswith("factorise down")}
    plain = run("factorise-linear{rank=4}", program, calibration=data, **chosen)
    assert plain.ok
    name = program.outputs[0]
    pairs = zip(execute(program, data), execute(plain.program, data), strict=True)
    away = np.concatenate([(b[name] - a[name]).reshape(-1, 24) for a, b in pairs])
    assert np.abs(away).max() > 0.1
    np.testing.assert_allclose(away.mean(0), 0, atol=1e-5)  # the bias makes up for the mean
    moved = {k: v for k, v in plain.program.graph.state_dict().items() if k.startswith("down.bias")}
    assert len(moved) == 2
    assert torch.equal(moved["down.bias"], program.graph.state_dict()["down.bias"])


def test_golden():
    program = captured(Two)
    after = run("factorise-linear{rank=4}", program).program
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("share/factorise-linear", "# before\n{}\n# after\n{}\n".format(*shown))


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("bert", "to-onnx,fuse-qkv,remove-padding"),
        ("bert", "fake-quant,to-onnx"),
        ("llama", "to-onnx,fuse-attention"),
        ("bert", "prune-heads{importance=random},prune-ffn{importance=magnitude},to-onnx"),
        ("bert", "prune-hidden{importance=random,multiple=4}"),
    ],
)
def test_what_comes_after_finds_a_program_like_any_other(name, rest):
    data = feeds_of(zoo.fx_program(name), 6)
    first = factorised(name, "rank=12", calibration=data)
    done = run(rest, first.program, calibration=data, original=first.program)
    assert done.ok, done.steps
    assert [step.status for step in done.steps] == ["applied"] * len(done.steps)
    agrees(first.program, done.program, rest)


def test_distilling_brings_it_nearer():
    program = zoo.fx_program("llama")
    data = feeds_of(program)
    done = factorised("llama", calibration=data)
    taught = run(
        "distill{steps=30,rate=3e-3,batch=4,precision=float32}",
        done.program,
        calibration=data,
        original=program,
    )
    assert taught.ok
    assert distance(program, taught.program) < distance(program, done.program)

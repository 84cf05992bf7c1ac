"""mixture-of-experts: the chosen experts alone, against the dense feed-forward in float64."""

import re

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.text import text
from graphwright.ir.view import view
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import golden
from pruning import run
from recovery import distance, feeds_of
from torch import nn
from torch.nn import functional

H, WIDE, EXPERTS = 8, 24, 4


class Layer(nn.Module):
    """A feed-forward on a stream (batch, length, 8), gated or not, with biases or not."""

    def __init__(self, act=functional.relu, gated=False, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.act = act
        self.gate = nn.Linear(H, WIDE, bias) if gated else None
        self.up, self.down = nn.Linear(H, WIDE, bias), nn.Linear(WIDE, H, bias)

    def hidden(self, x):
        return self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)

    def forward(self, x):
        return x + self.down(self.hidden(x))


def captured(module):
    return capture(module.eval(), inputs={"x": torch.randn(2, 3, H)})


def rows(seed=1, count=40):
    return {"x": torch.randn(count, 5, H, generator=torch.Generator().manual_seed(seed)).numpy()}


def split(program, options, data=None):
    done = run(f"mixture-of-experts{{{options}}}", program, calibration=data or [])
    assert done.ok, done.steps[0].error
    return done


def in_onnx(program):
    done = run("to-onnx", program)
    assert done.ok, done.steps[0].error
    return done.program


def mixtures(program):
    return recognise(view(program)).experts


MODELS = ["bert", "roberta", "albert", "mpnet", "mobilebert", "modernbert", "t5", "gpt2", "llama", "vit"]


@pytest.mark.parametrize("name", MODELS)
def test_with_all_experts_chosen_a_model_computes_what_it_did(name):
    case, program = zoo.ARCHITECTURES[name], zoo.fx_program(name)
    feeds = [{k: v.numpy() for k, v in case.inputs(4, 9, seed=seed).items()} for seed in range(2)]
    done = split(program, "experts=4,top=4", feeds)
    before, after = recognise(view(program)), recognise(view(done.program))
    assert not after.feed_forward
    assert [(one.experts, one.width * 4, one.activation, one.gated) for one in after.experts] == [
        (4, one.width, one.activation, one.gate is not None) for one in before.feed_forward
    ]
    assert [one.of for one in after.residual] == [one.of for one in before.residual]
    assert [one.position for one in after.norm] == [one.position for one in before.norm]
    found, expected = (execute(one, feeds[:1])[0] for one in (done.program, program))
    for output in program.outputs:
        np.testing.assert_allclose(found[output], expected[output], rtol=0, atol=1e-5)


def dense(module, program, x, top):
    """In float64, all experts of all tokens, of which only those with the best scores are added up; and where
    a score is well apart from the first that is not chosen."""
    held = {name: tensor.detach().double() for name, tensor in program.graph.state_dict().items()}
    held |= {name: tensor.double() for name, tensor in program.graph.named_buffers()}
    x = torch.from_numpy(x).double()

    def stack(name):
        made = torch.einsum("...i,eio->...eo", x, held[f"{name}.experts.weight"])
        return made + held.get(f"{name}.experts.bias", 0)

    inside = stack("up") if module.gate is None else stack("gate")
    inside = module.act(inside) if module.gate is None else module.act(inside) * stack("up")
    each = torch.einsum("...ei,eio->...eo", inside, held["down.experts.weight"])
    each = each + held.get("down.experts.bias", 0)
    scores = x @ held["up.router.weight"].T + held["up.router.bias"]
    ordered = scores.sort(-1, descending=True)
    chosen = ordered.indices[..., :top, None].expand(*x.shape[:-1], top, H)
    margin = ordered.values[..., top - 1] - ordered.values[..., top]
    return (x + each.gather(-2, chosen).sum(-2)).numpy(), (margin > 1e-4).numpy()


@pytest.mark.parametrize(
    ("settings", "top", "texts", "lowered"),
    [
        ({}, 2, True, True),
        ({}, 2, False, False),
        ({"bias": False}, 1, True, False),
        ({"bias": False}, 1, False, True),
        ({"gated": True, "act": functional.silu}, 3, True, True),
        ({"gated": True, "act": functional.silu}, 1, False, False),
        ({"act": functional.gelu}, 3, True, False),
    ],
)
def test_only_the_best_experts_of_each_token_are_added_up(settings, top, texts, lowered):
    module = Layer(**settings)
    done = split(captured(module), f"experts={EXPERTS},top={top}", [rows()] if texts else None)
    x = rows(2, 6)["x"]
    expected, clear = dense(module, done.program, x, top)
    program = in_onnx(done.program) if lowered else done.program
    found = execute(program, [{"x": x}])[0][program.outputs[0]]
    assert clear.mean() > 0.9
    np.testing.assert_allclose(found[clear], expected[clear], rtol=0, atol=5e-6)


@pytest.mark.parametrize("lowered", [False, True])
def test_an_expert_without_a_token_is_no_trouble(lowered):
    program = split(captured(Layer()), "experts=4,top=1", [rows()]).program
    program = in_onnx(program) if lowered else program
    x = rows(3, 1)["x"][:, :1]
    for each in (x, np.repeat(x, 7, axis=1)):
        found = execute(program, [{"x": each}])[0][program.outputs[0]]
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def berts():
    """Split, as (fx, onnx)."""
    program = zoo.fx_program("bert")
    made = split(program, "experts=4,top=2", feeds_of(program, 6)).program
    return made, in_onnx(made)


@pytest.mark.parametrize("dialect", [0, 1])
def test_a_text_alone_is_what_it_is_in_a_batch(berts, dialect):
    program = berts[dialect]
    (together,) = feeds_of(berts[0], 1)
    masks = [row != 0 for row in together["attention_mask"]]
    alone = [
        {name: array[number : number + 1, keep] for name, array in together.items()}
        for number, keep in enumerate(masks)
    ]
    whole, *each = (found[program.outputs[0]] for found in execute(program, [together, *alone]))
    for number, (keep, found) in enumerate(zip(masks, each, strict=True)):
        np.testing.assert_allclose(found[0], whole[number, keep], rtol=0, atol=1e-5)


def test_energy_and_load_are_what_rows_held_out_show():
    module, data = Layer(), rows()
    done = split(captured(module), f"experts={EXPERTS},top=2", [data])
    x = torch.from_numpy(data["x"].reshape(-1, H))
    held = np.arange(len(x)) % 4 == 3
    with torch.no_grad():
        due = (module(x) - x).double().numpy()
        middle = module.down(module.hidden(x)[~held].mean(0)).numpy()
        made = done.program.graph(x[None])[0][0] - x
    lost = np.square(made.numpy() - due)[held].sum() / np.square(due - middle)[held].sum()
    said = done.steps[0].statistics
    assert float(said["energy kept by layer"]) == pytest.approx(1 - lost, abs=6e-4)
    assert 0.5 < 1 - lost < 1
    average = (made.numpy() - due)[~held].mean(0)  # what is not computed is made up for on average
    np.testing.assert_allclose(average, 0, rtol=0, atol=1e-6)
    tensors = dict(done.program.graph.named_buffers())
    scores = x[held] @ tensors["up.router.weight"].T + tensors["up.router.bias"]
    load = np.bincount(scores.topk(2).indices.reshape(-1), minlength=EXPERTS) / held.sum()
    assert said["largest load over mean by layer"] == f"{load.max() / load.mean():.2f}"
    assert said["tokens that an expert sees"] == f"{load.min():.1%} to {load.max():.1%}"
    assert said["multiply-adds a token before"] == 2 * H * WIDE
    assert said["multiply-adds a token"] == H * WIDE + EXPERTS * H


def test_neurons_that_are_active_together_are_one_expert():
    """Three kinds of rows, and four neurons that look for each; ReLU is silent for the others."""
    module = Layer()
    kind = torch.arange(WIDE) * 7 % WIDE % 3
    with torch.no_grad():
        module.up.weight.zero_()
        module.up.weight[torch.arange(WIDE), kind] = 1 + torch.arange(WIDE) / WIDE
        module.up.bias.fill_(-0.5)
    of = np.random.default_rng(0).integers(0, 3, 400)
    x = np.zeros((1, 400, H), np.float32)
    x[0, np.arange(400), of] = 1 + np.random.default_rng(1).random(400)
    for data in ([{"x": x}], None):
        done = split(captured(module), "experts=3,top=1", data)
        up = dict(done.program.graph.named_parameters())["up.experts.weight"]
        places = up.abs().argmax(1)  # (experts, neurons): the feature that each looks for
        assert (places == places[:, :1]).all()
        found = execute(done.program, [{"x": x}])[0][done.program.outputs[0]]
        with torch.no_grad():
            np.testing.assert_allclose(found, module(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)


def test_energy_takes_as_many_experts_as_it_needs():
    program, data = captured(Layer()), [rows()]
    kept = []
    for top in range(1, EXPERTS + 1):
        said = split(program, f"experts={EXPERTS},top={top}", data).steps[0].statistics
        kept.append(float(said["energy kept by layer"]))
    assert kept == sorted(kept)
    for wanted in (0.3, kept[1] - 1e-3, kept[1] + 1e-3, 0.999):
        done = split(program, f"experts={EXPERTS},energy={wanted}", data)
        due = next(top for top, share in enumerate(kept, 1) if share >= wanted)
        assert mixtures(done.program)[0].router.per_token == due


def test_layers_that_share_a_feed_forward_share_its_experts():
    program = zoo.fx_program("albert")
    done = split(program, "experts=4,top=2", feeds_of(program, 4))
    stored = [name for name, _ in done.program.graph.named_parameters() if ".experts.weight" in name]
    assert len(stored) == 2
    assert len(mixtures(done.program)) == len(recognise(view(program)).feed_forward) == 2


def test_gradients_reach_the_chosen_experts_and_are_those_of_the_dense_form():
    program = split(captured(Layer()), "experts=4,top=2", [rows()]).program
    held = dict(program.graph.named_parameters())
    tensors = dict(program.graph.named_buffers())
    x = torch.from_numpy(rows(5, 2)["x"]).requires_grad_()
    program.graph(x)[0].square().sum().backward()
    ours = {name: each.grad.clone() for name, each in held.items()} | {"x": x.grad.clone()}
    for each in (*held.values(), x):
        each.grad = None
    inside = torch.einsum("bli,eio->bleo", x, held["up.experts.weight"]) + held["up.experts.bias"]
    each = (
        torch.einsum("blei,eio->bleo", inside.relu(), held["down.experts.weight"]) + held["down.experts.bias"]
    )
    scores = x.detach() @ tensors["up.router.weight"].T + tensors["up.router.bias"]
    mask = torch.zeros_like(scores).scatter(-1, scores.topk(2).indices, 1.0)
    (x + (each * mask[..., None]).sum(-2)).square().sum().backward()
    for name, each in [*held.items(), ("x", x)]:
        torch.testing.assert_close(ours[name], each.grad, atol=2e-5, rtol=1e-5)


def test_distilling_brings_it_nearer():
    program = zoo.fx_program("bert")
    data = feeds_of(program)
    done = split(program, "experts=4,top=1", data)
    options = "distill{steps=30,rate=3e-3,batch=4,precision=float32}"
    taught = run(options, done.program, calibration=data, original=program)
    assert taught.ok, taught.steps
    assert distance(program, taught.program) < 0.8 * distance(program, done.program)


def test_experts_are_quantized_each_by_itself(berts):
    lowered, data = berts[1], feeds_of(berts[0], 6)
    coded = Pipeline.parse("quantize-dynamic").run(lowered, Context(calibration=data, gates=False))
    assert coded.ok, coded.steps
    kinds = {name for name in coded.program.graph.graph.initializers if name.endswith(".int8")}
    assert sum("experts.weight" in name for name in kinds) == 2 * 2 * 4  # layers, sides, experts
    assert [(one.experts, one.router.per_token) for one in mixtures(lowered)] == [(4, 2)] * 2
    before, after = (execute(one, data[:1])[0][lowered.outputs[0]] for one in (lowered, coded.program))
    real = data[0]["attention_mask"] != 0
    assert np.square(before - after)[real].mean() < 0.02 * np.square(before[real]).mean()


def test_pruning_afterwards_says_that_experts_stay(berts):
    after = run("prune-ffn{importance=magnitude,multiple=4}", berts[0])
    assert "a mixture of 4 experts, which are left whole" in str(after.steps[0].error)


@pytest.mark.parametrize(
    "first", ["prune-ffn{importance=magnitude,multiple=4}", "tie-layers{what=ffn}", "nonorm{init=weights}"]
)
def test_what_comes_before_leaves_feed_forwards_to_split(first):
    program = zoo.fx_program("bert")
    data = feeds_of(program, 4)
    start = run(first, program, calibration=data, original=program).program
    done = split(start, "experts=4,top=4", data)
    assert len(mixtures(done.program)) == 2
    one = data[0]
    with torch.no_grad():
        torch.testing.assert_close(
            done.program.graph(*arguments(start, one))[0],
            start.graph(*arguments(start, one))[0],
            atol=1e-5,
            rtol=0,
        )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("experts=1", "experts is 1, and a feed-forward is split into 2 or more"),
        ("experts=4,top=5", "top is 5, and of 4 experts 1 to 4 can be chosen"),
        ("top=0", "top is 0"),
        ("top=2,energy=0.9", "give one of them"),
        ("energy=1.5", "above 0 and below 1"),
        ("tokens=0", "at least one"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, reason):
    with pytest.raises(PipelineError, match=reason):
        Pipeline.parse(f"mixture-of-experts{{{options}}}")


class Alone(nn.Linear):
    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (lambda: captured(Layer()), "experts=5", "24 neurons don't fall into 5 equal experts"),
        (lambda: captured(Layer()), "experts=24", "24 neurons don't fall into 24 equal experts"),
        (lambda: captured(Alone(H, 4)), "experts=2", "none with weights of its own was found"),
        (lambda: zoo.fx_program("squeezebert"), "experts=4", "it is a convolution"),
    ],
)
def test_what_cannot_be_split_says_why_and_stays(make, options, reason):
    program = make()
    done = run(f"mixture-of-experts{{{options}}}", program)
    assert isinstance(done.steps[0].error, PassError)
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_energy_needs_texts():
    with pytest.raises(PipelineError, match="needs calibration data"):
        run("mixture-of-experts{energy=0.9}", captured(Layer()))


def test_little_energy_and_no_texts_are_said():
    assert "keep less than 0.9" in split(captured(Layer()), "experts=4,top=1", [rows()]).steps[0].notes[-1]
    assert "no texts were given" in split(captured(Layer()), "experts=4,top=1").steps[0].notes[-1]


def test_golden():
    program = captured(Layer())
    after = split(program, "experts=4,top=2").program
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("simplify/mixture-of-experts", "# before\n{}\n# after\n{}\n".format(*shown))

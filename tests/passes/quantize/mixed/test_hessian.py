"""Hutchinson's traces against explicit Hessians, and against the loss that noise in the weights adds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import WeightError
from graphwright.passes.quantize.mixed.hessian import traces
from torch import nn
from torch.func import functional_call
from zoo import fx_program


class Tokens(nn.Module):
    """Ids to one vector a token; the first weight is used twice, so that its Hessian has cross terms."""

    def __init__(self):
        super().__init__()
        self.table, self.mix, self.last = nn.Embedding(7, 3), nn.Linear(3, 3), nn.Linear(3, 4)

    def forward(self, input_ids, attention_mask):
        x = self.table(input_ids)
        return self.last(torch.tanh(self.mix(torch.tanh(self.mix(x)))))


WEIGHTS = ("table.weight", "mix.weight", "last.weight")


@pytest.fixture(scope="module")
def tokens():
    torch.manual_seed(0)
    module = Tokens().eval()
    example = {
        "input_ids": torch.randint(0, 7, (2, 5)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    }
    return module, capture(module, inputs=example)


def tied():
    """A table that is the output head too, under two names."""
    torch.manual_seed(0)
    module = Tokens().eval()
    module.last = nn.Linear(3, 7, bias=False)
    module.last.weight = module.table.weight
    ids = torch.randint(0, 7, (2, 5))
    return module, capture(module, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def make_feeds(count):
    rng = np.random.default_rng(3)
    lengths = [rng.integers(2, 6, 3) for _ in range(count)]
    return [
        {
            "input_ids": rng.integers(0, 7, (3, 5)),
            "attention_mask": (np.arange(5)[None] < length[:, None]).astype(np.int64),
        }
        for length in lengths
    ]


def explicit(module, feeds, name, distance):
    """The trace of torch's own Hessian of the mean distance over rows that are no padding."""
    parameters = dict(module.named_parameters())

    def loss(weight):
        total, count = 0.0, 0
        for feed in feeds:
            ids, mask = (torch.from_numpy(feed[key]) for key in ("input_ids", "attention_mask"))
            found = functional_call(module, {name: weight}, (ids, mask))[mask != 0]
            with torch.no_grad():
                reference = module(ids, mask)[mask != 0]
            total, count = total + distance(reference, found), count + len(found)
        return total / count

    hessian = torch.autograd.functional.hessian(loss, parameters[name].detach())
    size = parameters[name].numel()
    return float(hessian.reshape(size, size).trace())


def squared(reference, found):
    return (reference - found).square().sum() / 2


def divergence(reference, found):
    return nn.functional.kl_div(
        found.log_softmax(-1), reference.log_softmax(-1), reduction="sum", log_target=True
    )


@pytest.mark.parametrize(("task", "distance"), [("features", squared), ("token-classification", divergence)])
def test_traces_are_those_of_the_explicit_hessian(tokens, task, distance):
    module, program = tokens
    feeds = make_feeds(2)
    found = traces(replace(program, task=task), feeds, WEIGHTS, samples=3000)
    for name in WEIGHTS:
        # 3000 probes on outputs of dozens of numbers leave a standard error of about 1%.
        assert found[name] == pytest.approx(explicit(module, feeds, name, distance), rel=0.05), name


def test_padding_has_no_part_in_it(tokens):
    _, program = tokens
    (feed,) = make_feeds(1)
    other = feed["input_ids"].copy()
    other[feed["attention_mask"] == 0] = 6
    assert (other != feed["input_ids"]).any()
    assert traces(program, [feed], WEIGHTS) == traces(program, [{**feed, "input_ids": other}], WEIGHTS)


def test_noise_in_a_weight_adds_half_of_its_variance_times_the_trace():
    """Over fused attention, which has no double backward; the second order is all that small noise sees."""
    program = fx_program("bert", "sdpa")
    feed = {
        "input_ids": np.random.default_rng(0).integers(5, 101, (4, 9)),
        "attention_mask": np.ones((4, 9), np.int64),
        "token_type_ids": np.zeros((4, 9), np.int64),
    }
    read = {str(node.target) for node in program.graph.graph.nodes if node.op == "get_attr"}
    names = sorted(n for n in read if n.endswith(("query.weight", "output.dense.weight")))
    assert len(names) == 6
    before = program.fingerprint()
    found = traces(program, [feed], names, samples=24)
    assert program.fingerprint() == before
    arguments = [torch.from_numpy(feed[spec.name]) for spec in program.inputs]
    generator, sigma = torch.Generator().manual_seed(5), 1e-3
    with torch.no_grad():
        (reference,) = program.graph(*arguments)
        for name in names:
            weight, losses = program.graph.get_parameter(name), []
            for _ in range(64):
                noisy = weight + sigma * torch.randn(weight.shape, generator=generator)
                (output,) = functional_call(program.graph, {name: noisy}, tuple(arguments))
                losses.append(float((output - reference).square().sum(-1).mean() / 2))
            assert np.mean(losses) == pytest.approx(sigma**2 / 2 * found[name], rel=0.15), name


def test_same_seed_same_traces_and_other_probes_for_another(tokens):
    _, program = tokens
    feeds = make_feeds(1)
    assert traces(program, feeds, WEIGHTS, seed=1) == traces(program, feeds, WEIGHTS, seed=1)
    assert traces(program, feeds, WEIGHTS, seed=1) != traces(program, feeds, WEIGHTS, seed=2)


def test_a_tied_weight_has_the_trace_of_all_its_uses():
    module, program = tied()
    feeds = make_feeds(2)
    read = {str(node.target) for node in program.graph.graph.nodes if node.op == "get_attr"}
    (name,) = read - {"mix.weight", "mix.bias"}
    found = traces(program, feeds, [name], samples=2000)[name]
    assert found == pytest.approx(explicit(module, feeds, "table.weight", squared), rel=0.06)


@pytest.mark.parametrize(("name", "what"), [("mix.wieght", "reads no weight"), ("output", "reads no weight")])
def test_unknown_weights_are_named(tokens, name, what):
    with pytest.raises(WeightError, match=f"{what} '{name}'"):
        traces(tokens[1], make_feeds(1), [name])

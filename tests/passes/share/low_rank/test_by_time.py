"""factorise-linear{latency}, on a clock that counts bytes: every choice can be worked out by hand."""

import copy
import itertools

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weights
from graphwright.passes.common.to_budget import RESERVE
from graphwright.passes.lower.timed.timing import Timing
from graphwright.passes.manager.contract import Ratio
from graphwright.passes.share.low_rank.by_time import grid
from pruning import run
from recovery import feeds_of
from torch import nn

WIDTH, INNER, LAYERS, CHOICES = 24, 40, 3, 2
RANKS = [5, 9]  # of 24x40, where two products of rank 15 are as large as one
FIXED = 5_000  # ticks that a call takes beside its weights'


class Clock:
    """A program takes a tick for each byte of its weights."""

    def __init__(self, each=0):
        self.calls, self.processes, self.each = 0, [], each

    def __call__(self, before, after, only=None, processes=1):
        self.calls += 1
        self.processes.append(processes)
        ratio = self.ticks(before) / self.ticks(after)
        return {name: Ratio(ratio, ratio, ratio) for name in ("1x8", "8x8") if only in (None, name)}

    def ticks(self, program):
        tensors = program.graph.state_dict() if program.dialect == "fx" else program.graph.graph.initializers
        slow = sum("reduction" in name for name in tensors)
        return FIXED + sum(weights(program).values()) + self.each * slow


class Chain(nn.Module):
    """Blocks beside a stream; the middle one's weights are nearly of rank 5, and the last hardly matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.ModuleList(nn.Linear(WIDTH, INNER) for _ in range(LAYERS))
        self.down = nn.ModuleList(nn.Linear(INNER, WIDTH) for _ in range(LAYERS))
        for part in (self.up[1], self.down[1]):
            left, values, right = torch.linalg.svd(part.weight.data, full_matrices=False)
            part.weight.data = left @ torch.diag(values * (torch.arange(len(values)) < 5) + 0.01) @ right
        self.down[2].weight.data *= 0.05

    def forward(self, x):
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return x


@pytest.fixture(autouse=True)
def unlowered(request, monkeypatch):
    """Lowering leaves bytes as they are, and takes most of the time of these tests."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(Timing, "_lowered", lambda self, program: program.clone())


@pytest.fixture(scope="module")
def module():
    return Chain().eval()


@pytest.fixture(scope="module")
def program(module):
    return capture(module, inputs={"x": torch.randn(2, 3, WIDTH)})


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    scale = rng.random(WIDTH) * 2
    return [{"x": (rng.standard_normal((4, 5, WIDTH)) * scale).astype(np.float32)} for _ in range(6)]


def factorised(program, data, latency, clock, **context):
    options = f"latency={latency},choices={CHOICES}"
    return run(f"factorise-linear{{{options}}}", program, calibration=data, measure=clock, **context)


def lost(module, name, rank, data):
    """At the outputs, in float64, with one layer of the best weight of a rank for what it is given."""
    module = copy.deepcopy(module).double()
    given = [torch.from_numpy(feed["x"]).double() for feed in data]
    part, seen = module.get_submodule(name), []
    hook = part.register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(-1, args[0].shape[-1])))
    with torch.no_grad():
        before = torch.cat([module(x) for x in given])
    hook.remove()
    x, weight = torch.cat(seen).numpy(), part.weight.detach().numpy()
    mean = x.mean(0)
    x = x - mean
    pull = 0.01 * np.square(x).sum(0).mean()
    v = np.linalg.svd(np.concatenate([x, np.sqrt(pull) * np.eye(x.shape[1])]) @ weight.T)[2][:rank]
    best = v.T @ (v @ weight)
    part.bias.data += torch.from_numpy((weight - best) @ mean)
    part.weight.data = torch.from_numpy(best)
    with torch.no_grad():
        after = torch.cat([module(x) for x in given])
    return float((after - before).square().sum() / before.square().sum())


@pytest.mark.parametrize("latency", [0.85, 0.7])
def test_the_ranks_are_those_that_lose_least_of_all_that_are_fast_enough(module, program, data, latency):
    names = [f"{what}.{number}" for number in range(LAYERS) for what in ("up", "down")]
    clock = Clock()
    done = factorised(program, data, latency, clock)
    assert done.ok, done.steps[0].error
    (step,) = done.steps
    assert not step.missed
    whole, now = (clock.ticks(each) for each in (program, done.program))
    assert now <= latency * whole
    assert step.statistics["speed-up measured"] == pytest.approx(whole / now, abs=1e-3)
    assert clock.processes[-1] == 3  # what is kept
    losses = {name: {0: 0.0} | {r: lost(module, name, r, data) for r in RANKS} for name in names}
    saved = {0: 0} | {rank: 4 * (WIDTH * INNER - rank * (WIDTH + INNER)) for rank in RANKS}

    def least(share):
        """Of all choices that take no more than a share of the time."""
        every = itertools.product([0, *RANKS], repeat=len(names))
        return min(total(one) for one in every if sum(saved[rank] for rank in one) >= whole * (1 - share))

    def total(ranks):
        return sum(losses[name][rank] for name, rank in zip(names, ranks, strict=True))

    rewritten = {rewrite.split()[1]: int(rewrite.split()[-1]) for rewrite in step.rewrites}
    ranks = [rewritten.get(f"{name}.weight", 0) for name in names]
    assert least(latency) * (1 - 1e-4) <= total(ranks) <= least(latency / RESERVE) * (1 + 1e-4)
    assert total(ranks) < 0.5 * total(
        [max(r for r in RANKS if saved[r] * len(names) >= whole * (1 - latency))] * len(names)
    )
    stays = {f"{name}.weight stays one product" for name, rank in zip(names, ranks, strict=True) if not rank}
    assert stays == {note for note in step.notes if "stays" in note}


def test_a_goal_out_of_reach_leaves_the_fastest_and_says_so(program, data):
    clock = Clock()
    (step,) = (done := factorised(program, data, 0.2, clock)).steps
    assert {int(rewrite.split()[-1]) for rewrite in step.rewrites} == {RANKS[0]}
    assert len(step.rewrites) == 2 * LAYERS
    share = clock.ticks(done.program) / clock.ticks(program)
    assert f"to take 0.2 of its time, and the best that was found takes {share:.2f}" in step.missed


def test_where_two_products_are_slower_than_one_nothing_is_changed(program, data):
    (step,) = (done := factorised(program, data, 0.9, Clock(each=10_000))).steps
    assert "nowhere are two products faster" in step.missed
    assert done.program.fingerprint() == program.fingerprint()


class Hasty(Clock):
    """What is timed for good takes longer than what is only looked at."""

    def __call__(self, before, after, only=None, processes=1):
        found = super().__call__(before, after, only, processes)
        return {name: Ratio(*[one.median / (1.1 if processes > 1 else 1)] * 3) for name, one in found.items()}


def test_what_is_short_when_timed_for_good_is_chosen_anew(program, data):
    clock = Hasty()
    (step,) = (done := factorised(program, data, 0.85, clock)).steps
    assert not step.missed
    assert clock.processes.count(3) > 1
    assert clock.ticks(program) / clock.ticks(done.program) / 1.1 >= 1 / 0.85


def test_all_graphs_of_a_bundle_choose_alike(program, data):
    clock, chosen = Clock(), {}
    first, calls = factorised(program, data, 0.85, clock, chosen=chosen), clock.calls
    second = factorised(program, data, 0.85, clock, chosen=chosen)
    assert clock.calls == calls
    assert second.program.fingerprint() == first.program.fingerprint()
    assert second.steps[0].statistics == first.steps[0].statistics


def test_energy_says_little_where_one_direction_holds_nearly_all_of_it():
    """A layer's own products are kept by a rank of 1, and what reads them leaves that one out."""

    class Outlier(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(WIDTH, INNER, bias=False)
            self.b = nn.Linear(INNER, WIDTH, bias=False)
            self.a.weight.data[0] *= 100

        def forward(self, x):
            return self.b(self.a(x)[..., 1:].tanh().repeat(1, 1, 2)[..., :INNER])

    rng = np.random.default_rng(3)
    data = [{"x": rng.standard_normal((4, 5, WIDTH)).astype(np.float32)} for _ in range(6)]
    program = capture(Outlier().eval(), inputs={"x": torch.randn(2, 3, WIDTH)})

    def away(options, **context):
        done = run(f"factorise-linear{{{options}}}", program, calibration=data, **context)
        assert done.ok, done.steps[0].error
        (name,) = program.outputs
        pairs = zip(execute(program, data), execute(done.program, data), strict=True)
        return sum(float(np.square(a[name] - b[name]).sum()) for a, b in pairs), done.steps[0]

    far, by_energy = away("energy=0.95")
    near, by_time = away(f"latency=0.85,choices={CHOICES}", measure=Clock())
    assert "factorise a.weight to 1" in by_energy.rewrites
    assert not by_time.missed
    assert near < 0.5 * far


def test_ranks_are_few_and_what_vectors_like():
    assert grid(14, 2) == RANKS
    assert grid(3, 4) == [1, 2]
    assert grid(1, 1) == []
    assert grid(255, 4) == [48, 96, 160, 208]
    assert grid(139, 100)[-1] == 128
    assert grid(0, 4) == []


@pytest.mark.slow  # 25 s: lowers a dozen programs
def test_a_model_takes_the_share_of_its_time_that_was_asked_for():
    program, clock = zoo.fx_program("bert"), Clock()
    options = "latency=0.8,choices=1,workload=8x8"
    done = run(f"factorise-linear{{{options}}}", program, calibration=feeds_of(program, 6), measure=clock)
    assert done.ok, done.steps[0].error
    assert not done.steps[0].missed
    lowered = [run("to-onnx", each).program for each in (program, done.program)]
    assert clock.ticks(lowered[1]) <= 0.8 * clock.ticks(lowered[0])

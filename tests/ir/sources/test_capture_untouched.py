"""What a module and its example hold is the same, bit for bit, after capture; writes are judged."""

import copy

import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError
from graphwright.ir.fx.untouched import untouched
from modules import Small, agree, floats, ids
from torch import nn
from torch.nn import functional as F  # noqa: N812

X = floats(3, 11, 4)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mha = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, query, key, value):
        return self.mha(query, key, value)[0]


def bits(module, tensors):
    held = [*module.parameters(), *module.buffers(), *tensors]
    return [tensor.detach().clone().reshape(-1).view(torch.uint8) for tensor in held]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def shifted():
    whole = floats(4, 11, 4)
    return [whole[:3], whole[1:]]


@pytest.mark.parametrize(
    ("module", "example", "others"),
    [
        (SelfAttention().eval(), [X, X, X], [floats(2, 5, 4, seed=i) for i in range(3)]),
        (
            Small(lambda self, a, b: self.table(a) + 2 * self.table(b).flip(1)),
            [ids(3, 11)] * 2,
            [ids(2, 5, seed=1), ids(2, 5, seed=2)],
        ),
        (
            Small(lambda self, a, b: self.linear(a) + 2 * b),
            shifted(),
            [floats(2, 5, 4, seed=1), floats(2, 5, 4, seed=2)],
        ),
        (
            Small(lambda self, a, b: self.linear(a) + 2 * b),
            [X[:1].expand(3, 11, 4), X],
            [floats(2, 5, 4, seed=1), floats(2, 5, 4, seed=2)],
        ),
    ],
    ids=["attention", "ids", "overlapping views", "expanded"],
)
def test_inputs_that_share_memory_in_the_example_are_inputs_of_their_own(module, example, others):
    program = capture(module, inputs=example)
    assert len(program.inputs) == len(example)
    with torch.no_grad():
        agree(program, others, [module(*others)])


def count(self, x):
    self.calls += 1
    return self.linear(x)


def count_in(self, x):
    self.calls += 1
    return self.linear(x) + self.calls


def running_mean(self, x):
    self.mean.mul_(0.9).add_(0.1 * x.mean())
    return self.linear(x) - self.mean


def workspace(self, x):
    self.mean.copy_(x.mean((0, 1)))
    return self.linear(x) - self.mean


def double(self, x):
    x *= 2
    return self.linear(x)


def first_zero(self, x):
    x[:, 0] = 0
    return self.linear(x)


def attribute(self, x):
    self.seen.append(len(self.seen))
    self.calls += 1
    return self.linear(x)


@pytest.mark.parametrize(
    ("module", "note"),
    [
        (Small(count, calls=torch.zeros(1)), "writes to 'calls' when it runs; its outputs didn't change"),
        (Small(count, calls=torch.zeros((), dtype=torch.long)), "writes to 'calls' when it runs"),
        (Small(workspace, mean=torch.zeros(4)), "writes to 'mean' when it runs"),
        (Small(double), "writes into its input 'x'; the program leaves it as it is."),
        (Small(first_zero), "writes into its input 'x'"),
        (Small(attribute, calls=0, seen=[]), ""),
    ],
    ids=["counter", "integer counter", "workspace", "doubled input", "zeroed input", "attributes"],
)
def test_writes_that_outputs_do_not_depend_on_are_left_out_and_said(module, note):
    example, other = X.clone(), floats(2, 5, 4, seed=3)
    before = bits(module, [example])
    program = capture(module, inputs=[example])
    assert same(bits(module, [example]), before)
    assert [n for n in program.info.get("notes", ()) if note in n] or not note
    assert getattr(module, "seen", []) == []
    with torch.no_grad():
        for _ in range(2):
            agree(program, [other], [copy.deepcopy(module)(other.clone())])
    assert all(type(node.target) is str or not node.target._schema.is_mutable for node in _calls(program))


def _calls(program):
    return [node for node in program.graph.graph.nodes if hasattr(node.target, "_schema")]


def test_a_table_that_is_renormalised_at_each_lookup_keeps_its_bits():
    module = Small(lambda self, i: self.linear(self.e(i)), e=nn.Embedding(20, 4, max_norm=0.5))
    before = bits(module, [])
    program = capture(module, inputs=[ids(3, 11)])
    assert same(bits(module, []), before)
    assert "writes to 'e.weight'" in program.info["notes"][0]
    with torch.no_grad():
        agree(program, [ids(2, 5, seed=1)], [copy.deepcopy(module)(ids(2, 5, seed=1))])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            Small(count_in, calls=torch.zeros(1)),
            r"^Small changes its buffer 'calls' when it runs, and its out",
        ),
        (Small(running_mean, mean=torch.zeros(1)), r"^Small changes its buffer 'mean' when it runs"),
        (Small(count_in, calls=0), r"^Small changes its attribute 'calls' when it runs"),
        (
            Small(lambda self, x: self.linear(x) + torch.randn(())),
            r"^Small draws random numbers when it runs, in evaluation mode too \(line \d+ of test_capture.*"
            r"torch\.randn\(.*: its outputs differ .*; leave the draw out of its forward, or make what",
        ),
        (
            Small(lambda self, x: F.dropout(self.linear(x), 0.5, True)),
            r"^Small draws random numbers .*line \d+ of test_capture_untouched.py: .*F\.dropout",
        ),
        (
            Small(lambda self, x: self.linear(x) * float("nan")),
            "gives nothing but NaN for its example inputs",
        ),
    ],
    ids=["counter", "running mean", "attribute", "noise", "dropout", "nan"],
)
def test_outputs_that_differ_from_call_to_call_are_refused_by_the_name_of_the_state(module, reason):
    example = X.clone()
    before, random = bits(module, [example]), torch.random.get_rng_state()
    with pytest.raises(CaptureError, match=reason):
        capture(module, inputs=[example])
    assert same(bits(module, [example]), before)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert getattr(module, "calls", 0) == 0


def test_state_outside_of_the_module_is_refused_too():
    calls = []

    def forward(self, x):
        calls.append(1)
        return self.linear(x) + len(calls)

    with pytest.raises(
        CaptureError, match="gives other outputs when it is called again with the same inputs"
    ):
        capture(Small(forward), inputs=[X])


def test_a_batch_norm_left_in_training_is_captured_in_evaluation_and_keeps_its_statistics():
    module = Small(lambda self, x: self.norm(x.mT).mT, norm=nn.BatchNorm1d(4)).train()
    before = bits(module, [])
    program = capture(module, inputs=[X])
    assert same(bits(module, []), before)
    assert module.norm.training
    with torch.no_grad():
        agree(program, [X], [copy.deepcopy(module).eval()(X)])


def test_a_failed_capture_leaves_everything_as_it_was():
    def forward(self, x):
        self.calls += 1
        x += 1
        return self.linear(x) if float(x.sum()) > 0 else x

    module, example = Small(forward, calls=torch.zeros(1)), X.clone()
    before = bits(module, [example])
    with pytest.raises(CaptureError, match="cannot trace Small"):
        capture(module, inputs=[example])
    assert same(bits(module, [example]), before)


def test_untouched_names_what_was_written_and_restores_views_and_containers():
    module = Small(count, calls=torch.zeros(1), log=[[1], {"a": {2}}])
    whole = floats(6)
    before = bits(module, [whole])
    with torch.no_grad(), untouched(module) as writes:
        module(X)
        module.linear.weight.data[0].zero_()
        whole[1:3].mul_(2)
        module.log[0].append(2)
        module.log[1]["a"].clear()
        module.more = 1
    assert same(bits(module, [whole]), before)
    assert (writes.buffers, writes.attributes) == (["calls"], ["more"])
    assert writes.changed(module.linear.weight)
    assert writes.changed(whole)
    assert not writes.changed(module.linear.bias)
    assert module.log == [[1], {"a": {2}}]
    assert not hasattr(module, "more")

"""Units removed from every architecture: what is left equals the whole program with those units masked."""

import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError
from graphwright.ir.fx import graph as fx
from graphwright.ir.ops.coupling import groups
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.wellformed import well_formed
from graphwright.passes.prune.importance.masks import masked
from graphwright.passes.prune.surgery.cut import cut_groups, remove
from graphwright.passes.prune.surgery.units import units
from torch import nn

# What goes from the blocks in turn: every other unit, all but one, nothing, everything, the first.
TURNS = (
    lambda size: range(0, size, 2) if size > 1 else (),
    lambda size: range(1, size),
    lambda size: (),
    lambda size: range(size),
    lambda size: (0,),
)
# Of an architecture's second spelling of attention one beginning; of all spellings every one.
CASES = [
    (name, attn, first)
    for number, (name, case) in enumerate(zoo.ARCHITECTURES.items())
    for attn in case.attns
    for first in (range(3) if attn == case.attns[-1] else [number % 3])
]


def chosen(found, first=0):
    return {one: list(TURNS[(first + i) % len(TURNS)](one.size)) for i, one in enumerate(found)}


def zeroed(program, going):
    """The program with the masks of what goes at zero."""
    whole = masked(program, list(going))
    with torch.no_grad():
        for mask, indices in zip(whole.masks, going.values(), strict=True):
            mask[indices] = 0
    return whole.module


def feed_of(program, case, batch=2, length=7, seed=3):
    tensors = case.inputs(batch, 11 if case.fixed else length, seed=seed)
    return [tensors[spec.name] for spec in program.inputs]


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_shapes_computed_anew_are_those_of_the_capture(name):
    program = zoo.fx_program(name).clone()
    shapes = {node: str(getattr(node.meta.get("val"), "shape", "")) for node in program.graph.graph.nodes}
    fx.propagate(program.graph)
    for node, shape in shapes.items():
        assert str(getattr(node.meta.get("val"), "shape", "")) == shape, node.name


@pytest.mark.parametrize(("name", "attn", "first"), CASES)
def test_a_pruned_program_is_the_masked_one(name, attn, first):
    program, case = zoo.fx_program(name, attn), zoo.ARCHITECTURES[name]
    going = chosen(units(program), first)
    expected = zeroed(program, going)
    pruned = program.clone()
    remove(pruned, going)
    well_formed(pruned)
    for batch, length in ((2, 7), (1, 12)):
        feed = feed_of(program, case, batch, length)
        with torch.no_grad():
            for a, b in zip(expected(*feed), pruned.graph(*feed), strict=True):
                torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_steps_of_fake_quantization_go_with_their_rows(name):
    program, case = zoo.fx_program(name), zoo.ARCHITECTURES[name]
    feeds = [{key: value.numpy() for key, value in case.inputs(seed=seed).items()} for seed in range(2)]
    ran = Pipeline.parse("fake-quant{learned=true}").run(program, Context(calibration=feeds))
    going = chosen(units(ran.program), 2)
    expected, pruned = zeroed(ran.program, going), ran.program.clone()
    remove(pruned, going)
    well_formed(pruned)
    feed = feed_of(program, case)
    with torch.no_grad():
        torch.testing.assert_close(pruned.graph(*feed)[0], expected(*feed)[0], atol=1e-5, rtol=1e-5)


class Shared(nn.Module):
    """One head of keys and values, repeated for every head of queries (Shazeer, 2019, arXiv:1911.02150)."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(24, n) for n in (32, 8, 8))
        self.o = nn.Linear(32, 24)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, 4, 8).transpose(1, 2)
        k, v = (p(x).view(b, n, 1, 8).transpose(1, 2).repeat(1, 4, 1, 1) for p in (self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.o(y.transpose(1, 2).reshape(b, n, 32))


def test_queries_of_one_key_go_one_by_one():
    torch.manual_seed(0)
    program = capture(Shared(), inputs={"x": torch.randn(3, 5, 24)})
    (one,) = units(program)
    assert (one.kind, one.size) == ("heads", 4)
    going = {one: [0, 2, 3]}
    expected, pruned = zeroed(program, going), program.clone()
    remove(pruned, going)
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(pruned.graph(x), expected(x), atol=1e-5, rtol=1e-5)


class Numbered(nn.Module):
    """The width is stated by an operator that makes numbers, in a way that surgery does not know."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)) + torch.linspace(0, 1, 24))


class Counted(Numbered):
    """The numbers that are added count the units: those that stay keep theirs."""

    def forward(self, x):
        return self.down(torch.relu(self.up(x)) + torch.arange(24))


def test_a_size_that_is_stated_in_an_unknown_way_is_found():
    program = capture(Numbered(), inputs={"x": torch.randn(2, 3, 8)})
    (group,) = [g for g in groups(view(program)) if g.size == 24]
    with pytest.raises(PassError, match=r"linspace.*became 24 where 23"):
        cut_groups(program.clone().graph, [(group, [5])])


def test_numbers_that_count_units_stay_with_them():
    program = capture(Counted(), inputs={"x": torch.randn(2, 3, 8)})
    (group,) = [g for g in groups(view(program)) if g.size == 24]
    pruned = program.clone()
    cut_groups(pruned.graph, [(group, [5])])
    model, x = program.graph, torch.randn(2, 7, 8)
    weight, bias, down, below = (
        model.get_parameter(n) for n in ("up.weight", "up.bias", "down.weight", "down.bias")
    )
    wide = torch.relu(x @ weight.T + bias) + torch.arange(24)
    wide[..., 5] = 0
    torch.testing.assert_close(pruned.graph(x)[0], wide @ down.T + below, atol=1e-5, rtol=1e-5)


class Unequal(nn.Module):
    """Two windows of one projection, one of which overlaps what the other leaves."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 24), nn.Linear(12, 8)

    def forward(self, x):
        wide = self.up(x)
        return self.down(torch.relu(wide[..., :12]) * wide[..., 12:])


def test_slices_move_with_what_goes_before_them():
    torch.manual_seed(0)
    program = capture(Unequal(), inputs={"x": torch.randn(2, 3, 8)})
    (one,) = units(program)
    going = {one: [0, 3, 11]}
    expected, pruned = zeroed(program, going), program.clone()
    remove(pruned, going)
    assert pruned.graph.get_parameter("up.weight").shape == (18, 8)
    x = torch.randn(2, 7, 8)
    torch.testing.assert_close(pruned.graph(x), expected(x), atol=1e-6, rtol=1e-6)


def test_a_unit_that_is_not_there_is_refused():
    program = zoo.fx_program("bert")
    first = units(program)[0]
    with pytest.raises(PassError, match="units 0 to 3"):
        remove(program.clone(), {first: [4]})


def test_the_program_before_is_left_as_it_was():
    program = zoo.fx_program("gpt2")
    before = program.fingerprint()
    remove(program.clone(), chosen(units(program)))
    assert program.fingerprint() == before


class Twin(nn.Module):
    """Two feed-forwards of the same weights."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 24, bias=False), nn.Linear(24, 8, bias=False)

    def forward(self, x):
        x = x + self.down(torch.relu(self.up(x)))
        return x + self.down(torch.relu(self.up(x)))


def test_weights_under_two_names_stay_one():
    torch.manual_seed(0)
    program = capture(Twin(), inputs={"x": torch.randn(2, 3, 8)})
    gm = program.graph
    for name in ("up", "down"):
        first, second = (node for node in gm.graph.nodes if _reads(node, f"{name}.weight"))
        fx.set_attribute(gm, f"{name}.twin", gm.get_parameter(f"{name}.weight"))
        with gm.graph.inserting_before(first):
            alias = gm.graph.get_attr(f"{name}.twin")
        alias.meta["val"] = first.args[1].meta["val"]
        second.replace_input_with(second.args[1], alias)
    gm.recompile()
    (one,) = units(program)
    assert len(one.outputs) == 2
    assert len(one.groups) > 1  # nothing in the graph joins the two, but the memory that they read
    going = {one: range(5, 20)}
    expected, pruned = zeroed(program, going), program.clone()
    remove(pruned, going)
    x = torch.randn(2, 7, 8)
    torch.testing.assert_close(pruned.graph(x), expected(x), atol=1e-6, rtol=1e-6)
    assert pruned.graph.get_parameter("up.twin") is pruned.graph.get_parameter("up.weight")
    assert pruned.graph.get_parameter("up.twin").shape == (9, 8)


def _reads(node, path):
    return any(source.op == "get_attr" and source.target == path for source in node.all_input_nodes)

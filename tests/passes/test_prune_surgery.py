"""Units removed from every architecture: what is left equals the whole program with those units masked."""

import pytest
import torch
import zoo
from graphwright.ir import fx
from graphwright.passes.prune.masks import masked
from graphwright.passes.prune.surgery import remove
from graphwright.passes.prune.units import units
from graphwright.passes.wellformed import well_formed

# What goes from the blocks in turn: every other unit, all but one, nothing, everything, the first.
TURNS = (
    lambda size: range(0, size, 2) if size > 1 else (),
    lambda size: range(1, size),
    lambda size: (),
    lambda size: range(size),
    lambda size: (0,),
)
SPELLINGS = [(name, attn) for name, case in zoo.ARCHITECTURES.items() for attn in case.attns]


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


@pytest.mark.parametrize(("name", "attn"), SPELLINGS)
def test_shapes_computed_anew_are_those_of_the_capture(name, attn):
    program = zoo.fx_program(name, attn).clone()
    shapes = {node: str(getattr(node.meta.get("val"), "shape", "")) for node in program.graph.graph.nodes}
    fx.propagate(program.graph)
    for node, shape in shapes.items():
        assert str(getattr(node.meta.get("val"), "shape", "")) == shape, node.name


@pytest.mark.parametrize(("name", "attn"), SPELLINGS)
@pytest.mark.parametrize("first", range(3))
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

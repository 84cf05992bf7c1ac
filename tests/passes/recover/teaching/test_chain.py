"""Chains of layers: their links give what the graph gives."""

import pytest
import torch
from graphwright.ir.errors import PassError
from graphwright.ir.inputs.probe import probes
from graphwright.passes.common.outputs import arguments
from graphwright.passes.recover.teaching.chain import chain, frozen
from graphwright.passes.recover.teaching.depth import layered
from zoo import ARCHITECTURES, fx_program

ONE_STACK = sorted(name for name, case in ARCHITECTURES.items() if name not in ("t5", "bart"))


def cuts_of(program):
    layers = layered(program)[0][0].layers
    return [layers[0].entry.native.name, *(layer.exit.native.name for layer in layers)]


@pytest.mark.parametrize("name", ONE_STACK)
def test_the_links_of_a_chain_give_what_the_graph_gives(name):
    program = fx_program(name)
    names = cuts_of(program)
    graph = frozen(program.graph)
    assert not [p for p in graph.parameters() if p.requires_grad]
    for cut in (chain(program.graph, names), chain(graph, names)):
        assert len(cut.links) == len(names) - 1
        for one in probes(program, 0):
            inputs = arguments(program, one)
            with torch.no_grad():
                expected = torch.utils._pytree.tree_leaves(program.graph(*inputs))
                stream = cut.head(*inputs)
                for link in cut.links:
                    stream = link(stream, *inputs)
                found = torch.utils._pytree.tree_leaves(cut.tail(stream, *inputs))
            for a, b in zip(expected, found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_a_stream_that_is_read_past_a_cut_cannot_be_cut():
    program = fx_program("bert")
    names = cuts_of(program)
    with pytest.raises(PassError, match="past the layers between them"):
        chain(program.graph, [names[0], names[2], names[1]])

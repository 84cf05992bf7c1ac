"""Units cut out: what is left equals PyTorch with their columns zero."""

import copy

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.prune.surgery.cut import remove
from graphwright.passes.prune.surgery.units import units
from pruning import shapes

# Fused projections, grouped queries, rotation, relative positions, shared weights, gates, two stacks.
KINDS = (
    "bert",
    "gpt2",
    "llama",
    "qwen3",
    "t5",
    "albert",
    "modernbert",
    "mpnet",
    "bart",
    "gemma2",
    "openai_gpt",
    "xlnet",
    "gpt_oss",
    "bloom",
)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("name", KINDS)
def test_it_equals_pytorch_with_those_columns_zero(name):
    """In float64 where it can be, against the module itself; where a unit's columns are, is worked out once
    more."""
    case = (zoo.ARCHITECTURES | zoo.SCORES)[name]
    # norms, softmax or positions are float32 in any case
    single = name in ("gemma2", "gpt_oss", "xlnet", "bloom")
    module = case.build() if single else case.build().double()
    program = capture(copy.deepcopy(module), inputs=case.inputs())
    rng = np.random.default_rng(1)
    going = {one: rng.permutation(one.size)[: rng.integers(1, one.size)] for one in units(program)}
    gone = list(going)[1]
    going[gone] = range(gone.size)
    nodes = {node.name: node for node in program.graph.graph.nodes}
    for one, indices in going.items():
        for output in one.outputs:
            # XLNet's has an axis of heads and one of their features.
            weight = module.get_parameter(nodes[output.weight].target).data.flatten(1)
            axis = 0 if name in ("gpt2", "openai_gpt") else 1  # their Conv1D is stored (in, out)
            each = weight.shape[axis] // one.size
            columns = [unit * each + i for unit in indices for i in range(each)]
            weight.index_fill_(axis, torch.tensor(columns), 0)
    remove(program, going)
    tensors = case.inputs(2, 13, seed=5)
    with torch.no_grad():
        expected = module(**tensors)[program.outputs[0]]
        got = program.graph(*(tensors[spec.name] for spec in program.inputs))[0]
    exact = 1e-5 if single else 1e-12
    torch.testing.assert_close(got, expected, atol=exact, rtol=max(exact, 1e-10))


def test_a_layer_without_heads_is_its_bias():
    program = zoo.fx_program("bert").clone()
    first = units(program)[0]
    remove(program, {first: range(first.size)})
    left = [name for name in shapes(program) if name.startswith("encoder.layer.0.attention")]
    assert sorted(left) == [
        f"encoder.layer.0.attention.output.{name}"
        for name in ("LayerNorm.bias", "LayerNorm.weight", "dense.bias")
    ]
    assert recognise(view(program)).summary()["attention"] == 1

"""prune-heads and prune-ffn: what goes, what they refuse, and what the passes after them make of the rest."""

import copy

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.dims import DimsError
from graphwright.ir.errors import PassError, PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.fx import attribute
from graphwright.ir.probe import probes
from graphwright.passes.base import Context
from graphwright.passes.manager import Pipeline
from graphwright.passes.prune.heads import PruneHeads
from graphwright.passes.prune.surgery import remove
from graphwright.passes.prune.units import units
from graphwright.passes.reproducer import write_model
from torch import nn
from zoo.handwritten import Clipped


def run(text, program, **context):
    return Pipeline.parse(text).run(program, Context(**context))


def feeds(name, count=3):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(count)]


def shapes(program):
    return {name: tuple(tensor.shape) for name, tensor in program.graph.state_dict().items()}


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
)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("name", KINDS)
def test_it_equals_pytorch_with_those_columns_zero(name):
    """In float64 where it can be, against the module itself; where a unit's columns are, is worked out once
    more."""
    case = (zoo.ARCHITECTURES | zoo.SCORES)[name]
    single = name in ("gemma2", "gpt_oss", "xlnet")  # norms, softmax or positions are float32 in any case
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


@pytest.mark.parametrize(
    ("name", "attn"),
    [
        ("bert", "sdpa"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("gpt2", "eager"), ("llama", "sdpa"), ("t5", "sdpa"), ("modernbert", "eager")]
        ),
    ],
)
def test_it_goes_on_to_onnx_fused_and_quantized(name, attn):
    text = "prune-heads{importance=random,ratio=0.4},prune-ffn{importance=magnitude,ratio=0.5,multiple=4}"
    pruned = run(text, zoo.fx_program(name, attn), seed=3)
    assert pruned.ok
    program = pruned.program
    heads = [(a.heads, a.kv_heads, a.head_dim) for a in recognise(program).attention]
    lowered = run("to-onnx", program)
    assert lowered.ok
    assert [(a.heads, a.kv_heads, a.head_dim) for a in recognise(lowered.program).attention] == heads
    fed = probes(program, 1)
    for a, b in zip(execute(program, fed), execute(lowered.program, fed), strict=True):
        for output in program.outputs:
            np.testing.assert_allclose(b[output], a[output], atol=1e-4, rtol=1e-4)
    further = run("fuse-attention,quantize-dynamic", lowered.program, calibration=feeds(name))
    fused, quantized = further.steps
    assert further.ok
    assert quantized.status == "applied"
    if name == "bert":
        assert fused.statistics["attentions fused"] == "2 of 2"


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_it_is_saved_and_captured_again(name, tmp_path):
    program = run(
        "prune-heads{importance=random,ratio=0.5},prune-ffn{importance=random}", zoo.fx_program(name)
    )
    program = program.program
    again = capture(write_model(program, tmp_path))
    assert again.graph.state_dict().keys() <= program.graph.state_dict().keys()
    assert [(a.heads, a.head_dim) for a in recognise(again).attention] == [
        (a.heads, a.head_dim) for a in recognise(program).attention
    ]
    fed = probes(program, 2)
    for a, b in zip(execute(program, fed), execute(again, fed), strict=True):
        for one, other in zip(a.values(), b.values(), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)


def test_parameters_keep_their_names():
    before, after = (
        shapes(zoo.fx_program("bert")),
        shapes(run("prune-ffn{importance=magnitude,ratio=0.5,multiple=1}", zoo.fx_program("bert")).program),
    )
    assert before.keys() == after.keys()
    different = {name for name in before if before[name] != after[name]}
    assert different == {
        f"encoder.layer.{layer}.{part}"
        for layer in (0, 1)
        for part in ("intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight")
    }
    assert sum(after[f"encoder.layer.{layer}.intermediate.dense.bias"][0] for layer in (0, 1)) == 72


def test_a_layer_without_heads_is_its_bias():
    program = zoo.fx_program("bert").clone()
    first = units(program)[0]
    remove(program, {first: range(first.size)})
    left = [name for name in shapes(program) if name.startswith("encoder.layer.0.attention")]
    assert sorted(left) == [
        f"encoder.layer.0.attention.output.{name}"
        for name in ("LayerNorm.bias", "LayerNorm.weight", "dense.bias")
    ]
    assert recognise(program).summary()["attention"] == 1


def test_layers_with_the_same_weights_go_together():
    found = units(zoo.fx_program("albert"))
    assert [(one.kind, one.size, len(one.outputs)) for one in found] == [("heads", 4, 2), ("width", 72, 2)]
    program = run("prune-heads{importance=magnitude,ratio=0.5}", zoo.fx_program("albert")).program
    assert [a.heads for a in recognise(program).attention] == [2, 2]
    (stack,) = recognise(program).stack
    assert stack.shared


@pytest.mark.parametrize("name", ["t5", "mpnet"])
def test_layers_under_one_position_bias_lose_heads_of_their_own(name):
    done = run("prune-heads{importance=random,ratio=0.4}", zoo.fx_program(name), seed=4)
    assert done.ok
    counts = [a.heads for a in recognise(done.program).attention]
    assert len(set(counts)) > 1
    again = run("prune-heads{importance=random,ratio=0.4}", done.program, seed=1)
    assert again.ok
    assert not again.steps[0].notes  # none of them has become unprunable
    assert sum(a.heads for a in recognise(again.program).attention) < sum(counts)


def test_it_prunes_until_nothing_is_left():
    program = zoo.fx_program("bert")
    left = [8]
    for seed in range(20):
        if not recognise(program).attention:
            break
        done = run("prune-heads{importance=random,ratio=0.6}", program, seed=seed)
        assert done.ok
        program = done.program
        left.append(sum(a.heads for a in recognise(program).attention))
    assert left[-1] == 0 or left[-1] == left[-2] == 1  # 0.6 of one head is one head
    assert left == sorted(left, reverse=True)


def test_one_scope_takes_the_same_share_of_each_layer():
    done = run("prune-heads{importance=random,ratio=0.5,scope=layer}", zoo.fx_program("bert"))
    assert [a.heads for a in recognise(done.program).attention] == [2, 2]
    assert done.steps[0].statistics["heads left by layer"] == "2 2"


def test_widths_are_multiples():
    done = run("prune-ffn{importance=magnitude,ratio=0.4,multiple=16}", zoo.fx_program("bert"))
    widths = [f.width for f in recognise(done.program).feed_forward]
    assert all(width % 16 == 0 for width in widths)
    assert sum(widths) >= 0.6 * 144


def test_no_ratio_changes_nothing():
    done = run("prune-heads{importance=magnitude,ratio=0.0}", zoo.fx_program("bert"))
    assert done.ok
    assert done.steps[0].status == "no change"


@pytest.mark.parametrize("ratio", ["1.0", "1.5", "-0.1"])
def test_a_ratio_of_one_is_refused(ratio):
    with pytest.raises(PipelineError, match="at least 0 and below 1"):
        Pipeline.parse(f"prune-heads{{ratio={ratio}}}")


def test_an_importance_that_is_none_is_refused():
    with pytest.raises(PipelineError, match="magnitude"):
        Pipeline.parse("prune-ffn{importance=weight}")


def test_data_are_asked_for_before_work_starts():
    with pytest.raises(PipelineError, match="calibration data"):
        run("prune-heads", zoo.fx_program("bert"))
    assert PruneHeads(importance="random").requires == ()


def test_heads_that_are_not_recognised_are_named():
    done = run(
        "prune-heads{importance=random}", capture(Clipped().eval(), inputs={"x": torch.randn(2, 5, 12)})
    )
    assert isinstance(done.steps[0].error, PassError)
    assert "the scores come from clip" in str(done.steps[0].error)


def test_heads_that_an_output_depends_on_are_named():
    done = run("prune-heads{importance=random}", zoo.fx_program("squeezebert", "eager"))
    assert "an axis of the output" in str(done.steps[0].error)


class Rolled(nn.Module):
    """A feed-forward whose features are shifted by an operator that no rule describes."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x):
        return x + self.down(torch.roll(torch.relu(self.up(x)), 1, dims=-1))


def test_an_operator_whose_coupling_is_not_known_is_named():
    program = capture(Rolled(), inputs={"x": torch.randn(2, 3, 8)})
    done = run("prune-ffn{importance=random}", program)
    assert isinstance(done.steps[0].error, DimsError)
    assert "aten.roll" in str(done.steps[0].error)
    assert attribute(done.program.graph, "up.weight").shape == (24, 8)

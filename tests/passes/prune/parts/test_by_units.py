"""prune-heads and prune-ffn: what the passes after them make of what is left."""

import numpy as np
import pytest
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.manager.reproducer import write_model
from pruning import run


def feeds(name, count=3):
    case = zoo.ARCHITECTURES[name]
    return [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(count)]


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
    heads = [(a.heads, a.kv_heads, a.head_dim) for a in recognise(view(program)).attention]
    lowered = run("to-onnx", program)
    assert lowered.ok
    assert [(a.heads, a.kv_heads, a.head_dim) for a in recognise(view(lowered.program)).attention] == heads
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
    assert [(a.heads, a.head_dim) for a in recognise(view(again)).attention] == [
        (a.heads, a.head_dim) for a in recognise(view(program)).attention
    ]
    fed = probes(program, 2)
    for a, b in zip(execute(program, fed), execute(again, fed), strict=True):
        for one, other in zip(a.values(), b.values(), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)

"""linear, performer, linformer and nystrom: what all hold to, by themselves and in models."""

import functools
import math
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.fx.graph import symbol_names
from graphwright.ir.inputs.probe import feed
from graphwright.ir.text import diff
from graphwright.passes.attend.kinds import kind
from handmade import golden
from mixing import alone, drawn
from pruning import run
from recovery import distance, feeds_of
from tokens import alone as text_alone
from tokens import batch, pooled

KINDS = {
    "linear": {"chunk": 4},
    "performer": {"chunk": 4, "features": 24},
    "linformer": {"rank": 5, "length": 40},
    "nystrom": {"landmarks": 3, "convolution": 3},
}
BACKWARD = ("linear", "performer")
LOWERED = (
    pytest.param("linear", "llama", marks=pytest.mark.slow),
    ("performer", "bert"),
    ("linformer", "roberta"),
    ("nystrom", "vit"),
)


@functools.cache
def own(name):
    site = SimpleNamespace(attention=SimpleNamespace(head_dim=4, heads=3), longest=None)
    return dict(kind(name, KINDS[name]).own(site, None, torch.Generator().manual_seed(0)))


def mixed(name, heads):
    return kind(name, KINDS[name]).mix(heads, own(name))


def options(name):
    return f"kind={name}," + ",".join(f"{key}={value}" for key, value in KINDS[name].items())


@functools.cache
def substituted(name, model):
    done = run(f"substitute-attention{{{options(name)}}}", zoo.fx_program(model))
    assert done.steps[0].status == "applied", done.steps[0].error
    return done


@functools.cache
def in_pooled(name):
    done = run(f"substitute-attention{{{options(name)}}}", pooled("bert"))
    assert done.steps[0].status == "applied", done.steps[0].error
    return done.program


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    ("name", "causal"), [(n, c) for n in KINDS for c in (False, True) if n in BACKWARD or not c]
)
def test_a_text_in_a_batch_is_what_it_is_alone(name, causal, left):
    lengths = (9, 5, 4, 3, 1)
    heads = drawn(lengths, longest=11, causal=causal, left=left)
    together = mixed(name, heads)
    for row in range(len(lengths)):
        found = together[row][:, heads.keep[row]]
        torch.testing.assert_close(found, mixed(name, alone(heads, row))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_text_of_no_tokens_is_no_nan_and_moves_nobody(name, causal):
    if causal and name not in BACKWARD:
        return
    heads = drawn([5, 3], causal=causal, left=True)
    wanted = mixed(name, heads)[:1]
    heads.keep[1] = False
    heads.q.requires_grad_()
    found = mixed(name, heads)
    assert found.isfinite().all()
    torch.testing.assert_close(found[:1], wanted, rtol=0, atol=1e-5)
    found.square().sum().backward()
    assert heads.q.grad.isfinite().all()


@pytest.mark.parametrize("name", BACKWARD)
def test_a_later_token_moves_nothing_before_it(name):
    heads = drawn([11], causal=True)
    before = mixed(name, heads)
    for x in (heads.q, heads.k, heads.v):
        x[:, :, 7:] *= -3
    after = mixed(name, heads)
    torch.testing.assert_close(after[:, :, :7], before[:, :, :7], rtol=0, atol=1e-6)
    assert (after[:, :, 7:] - before[:, :, 7:]).abs().min() > 0


@pytest.mark.parametrize("name", KINDS)
def test_queries_keys_values_and_its_own_parameters_learn(name):
    heads = drawn([9, 4])
    given = [x.requires_grad_() for x in (heads.q, heads.k, heads.v)]
    parameters = [x for x in own(name).values() if isinstance(x, torch.nn.Parameter)]
    moved = mixed(name, heads)[heads.keep[:, None].expand(-1, 3, -1)].square().sum()
    for gradient in torch.autograd.grad(moved, [*given, *parameters]):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize(("name", "model"), LOWERED)
def test_a_graph_traced_once_is_right_at_other_sizes_and_in_onnx(name, model):
    done = substituted(name, model)
    after = done.program
    lowered = run("to-onnx", after)
    assert lowered.steps[0].status == "applied", lowered.steps[0].error
    assert lowered.program.dialect == "onnx"
    softmaxes = Counter(node.op_type for node in lowered.program.graph.graph)["Softmax"]
    assert softmaxes == 2 * {"linformer": 1, "nystrom": 3}.get(name, 0)
    sizes = [{"batch": b, "length": n} for b, n in ((1, 1), (2, 3), (1, 4), (3, 5), (2, 40))]
    feeds = [
        feed(after, {key: size for key, size in each.items() if key in after.symbols}, pattern)
        for each in sizes
        for pattern in ("ragged", "left")
    ]
    for found, wanted, one in zip(execute(lowered.program, feeds), execute(after, feeds), feeds, strict=True):
        for output in after.outputs:
            assert np.isfinite(found[output]).all()
            np.testing.assert_allclose(found[output], wanted[output], rtol=1e-5, atol=1e-5, err_msg=str(one))


@pytest.mark.parametrize("name", ["linformer", "nystrom"])
def test_the_vector_of_a_text_does_not_depend_on_its_batch(name):
    program = in_pooled(name)
    (output,) = program.outputs
    lengths = (11, 7, 3, 1)
    feeds = batch(program, lengths)
    together = execute(program, [feeds])[0][output]
    rows = [execute(program, [text_alone(program, feeds, row)])[0][output][0] for row in range(len(lengths))]
    np.testing.assert_allclose(together, np.array(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("linear", "llama"),
        ("performer", "bert"),
        ("performer", "llama"),
        ("linformer", "bert"),
        ("nystrom", "bert"),
    ],
)
def test_nothing_grows_faster_than_the_text(name, model):
    program = in_pooled(name) if name not in BACKWARD else substituted(name, model).program
    short, long = (_largest(program, length) for length in (1024, 4096))
    assert long < 4.1 * short


def _largest(program, length):
    """Numbers of the largest value, at a length."""
    names = symbol_names(program.graph.graph, program.inputs)
    sizes = {symbol: length if str(name) == "length" else 1 for symbol, name in names.items()}
    shapes = [getattr(node.meta.get("val"), "shape", ()) for node in program.graph.graph.nodes]
    return max(math.prod(_size(size, sizes) for size in shape) for shape in shapes)


def _size(size, sizes):
    return size if isinstance(size, int) else int(size.node.expr.subs(sizes))


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("linformer", "gpt2", "it looks back only, and linformer attention has no form that does"),
        ("nystrom", "llama", "it looks back only, and nystrom attention has no form that does"),
        ("nystrom", "mpnet", "a position bias is added to its scores"),
        ("performer", "gemma2", "its scores are capped or gated"),
    ],
)
def test_where_it_cannot_stand_the_reason_is_told_and_nothing_changes(name, model, reason):
    program = zoo.fx_program(model)
    done = run(f"substitute-attention{{{options(name)}}}", program)
    assert done.steps[0].status == "refused"
    assert reason in str(done.steps[0].error)
    assert done.program.fingerprint() == program.fingerprint()


def test_the_biased_scores_of_t5_are_left():
    done = run("substitute-attention{kind=performer}", pooled("t5"))
    assert "a position bias is added to its scores" in str(done.steps[0].error)


def test_where_nothing_bounds_a_text_its_longest_is_asked_for():
    done = run("substitute-attention{kind=linformer,rank=5}", zoo.fx_program("modernbert"))
    assert "nothing says how long its texts may be: give length" in str(done.steps[0].error)
    done = run("substitute-attention{kind=linformer,rank=5}", zoo.fx_program("bert"))
    assert tuple(done.program.graph.state_dict()["attend.0.keys"].shape) == (64, 5)


def test_a_window_that_a_model_has_already_is_left():
    (note,) = substituted("linear", "modernbert").steps[0].notes
    assert "it looks at a window of keys already" in note


def test_on_texts_the_error_of_each_layer_is_told():
    program = zoo.fx_program("bert")
    done = run("substitute-attention{kind=linformer,rank=20}", program, calibration=feeds_of(program, 6))
    told = [float(error) for error in done.steps[0].statistics["error by layer"].split()]
    assert len(told) == 2
    assert max(told) < 1e-10  # texts of 9 tokens have a row for each


@pytest.mark.parametrize(("name", "model"), [("linformer", "bert")])
def test_distilling_brings_it_nearer(name, model):
    program = _sharp(model)
    after = run(f"substitute-attention{{{options(name)}}}", program).program
    teach = "distill{steps=40,rate=1e-3,batch=4,precision=float32}"
    taught = run(teach, after, calibration=feeds_of(program), original=program)
    assert taught.ok
    assert distance(program, taught.program) < 0.9 * distance(program, after)


def _sharp(model):
    """With weights that make attention matter."""
    case = zoo.ARCHITECTURES[model]
    module = case.build()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            parameter.data *= 4
    return capture(module, inputs=case.inputs())


@pytest.mark.parametrize("name", ["linformer"])
def test_pruning_and_int8_come_after_it(name):
    after = in_pooled(name)
    done = run(
        "prune-ffn{importance=magnitude},to-onnx,quantize-dynamic",
        after,
        calibration=feeds_of(after, 6),
        original=after,
    )
    assert done.ok, done.steps
    assert [step.status for step in done.steps] == ["applied"] * 3


@pytest.mark.parametrize("name", ["linear", "linformer"])
def test_golden(name):
    model = {"linear": "gpt2", "linformer": "bert"}[name]
    program = zoo.fx_program(model)
    after = run(f"substitute-attention{{{options(name)},layers=(0,)}}", program).program
    golden(f"attend/{name}", re.sub(r" #[0-9a-f]+", "", diff(program, after)) + "\n")

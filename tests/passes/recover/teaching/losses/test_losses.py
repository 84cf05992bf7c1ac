"""Each term against its paper's formula in NumPy; attention maps against those of the eager spelling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.common.outputs import arguments
from graphwright.passes.recover.teaching.losses.attention import (
    Maps,
    Relations,
    heads_first,
    map_nodes,
    native,
)
from graphwright.passes.recover.teaching.losses.outputs import (
    HardLabels,
    Outputs,
    Similarity,
    SoftLabels,
    hidden,
)
from graphwright.passes.recover.training.own import watched
from zoo import ARCHITECTURES, fx_program

RNG = np.random.default_rng(0)
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
FEED = {"input_ids": MASK, "attention_mask": MASK}
REAL = MASK != 0


def tensors(*shape):
    return [torch.from_numpy(RNG.standard_normal(shape).astype(np.float32)) for _ in range(2)]


def double(*values):
    return [value.detach().double().numpy() for value in values]


def softmax(x, temperature=1.0):
    e = np.exp(x / temperature - (x / temperature).max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(a, b):
    return (a * (np.log(a) - np.log(b))).sum(-1)


def test_vectors_are_compared_by_squared_distance_over_the_mean_square():
    program = fx_program("bert")
    for shape, where in (((3, 5), slice(None)), ((3, 4, 5), REAL)):
        a, b = tensors(*shape)
        x, y = (one[where] for one in double(a, b))
        term = Outputs(1.0, None, [], [], program=program)
        expected = ((x - y) ** 2).sum() / (x**2).sum()
        assert float(term.distance(FEED, [a], [b])) == pytest.approx(expected, rel=1e-5)
        unit = [one / one.norm(dim=-1, keepdim=True) for one in (a, b)]
        cosine = torch.cosine_similarity(a, b, dim=-1).numpy()[where].mean()
        assert float(term.distance(FEED, unit[:1], unit[1:])) == pytest.approx(2 - 2 * cosine, rel=1e-4)


def test_rows_that_the_teacher_has_no_number_for_teach_nothing():
    a, b = tensors(3, 5)
    term = Outputs(1.0, None, [], [], program=fx_program("bert"))
    expected = float(term.distance(FEED, [a[:2]], [b[:2]]))
    a[2] = torch.nan
    assert float(term.distance(FEED, [a], [b])) == pytest.approx(expected)


def test_similarity_is_that_of_all_pairs():
    a, b = tensors(3, 5)
    x, y = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in double(a, b))
    expected = np.mean([(x[i] @ x[j] - y[i] @ y[j]) ** 2 for i in range(3) for j in range(3)])
    assert float(Similarity(1.0, None, [], []).distance(FEED, [a], [b])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_are_hintons(temperature):
    program = replace(fx_program("bert"), task="token-classification")
    a, b = tensors(3, 4, 6)
    x, y = (softmax(one, temperature)[REAL] for one in double(a, b))
    term = SoftLabels(1.0, None, [], [], program=program, temperature=temperature)
    assert float(term.distance(FEED, [a], [b])) == pytest.approx(
        temperature**2 * divergence(x, y).mean(), rel=1e-5
    )


def test_hard_labels_leave_places_without_one_out():
    _, b = tensors(3, 4, 6)
    labels = np.where(REAL, RNG.integers(0, 6, MASK.shape), -100)
    chosen = np.log(softmax(double(b)[0]))[REAL, labels[REAL]]
    term = HardLabels(1.0, None, [], [])
    assert float(term.distance({**FEED, "labels": labels}, [], [b])) == pytest.approx(
        -chosen.mean(), rel=1e-5
    )
    none = {**FEED, "labels": np.full_like(labels, -100)}
    assert float(term.distance(none, [], [b])) == 0


def test_states_of_other_widths_go_through_a_learned_matrix():
    program = fx_program("bert")
    block = recognise(view(program)).feed_forward[0]
    node, other = block.root.native, block.up.root.native
    width, size = (one.meta["val"].shape[-1] for one in (node, other))
    term = hidden(program, 1.0, 0, node, other, seed=0)
    matrix = term.parameters["projection.0"]
    assert matrix.shape == (width, size)
    a, b = tensors(3, 4, width)[0], tensors(3, 4, size)[0]
    x, y, w = double(a, b, matrix)
    x, y = x[REAL], y[REAL] @ w.T
    loss = term.distance(FEED, [a], [b])
    assert loss.item() == pytest.approx(((x - y) ** 2).sum() / (x**2).sum(), rel=1e-5)
    loss.backward()
    assert float(matrix.grad.abs().sum()) > 0
    assert hidden(program, 1.0, 0, node, node, seed=0).parameters == {}


SPELLINGS = sorted(name for name, case in ARCHITECTURES.items() if {"eager", "sdpa"} <= set(case.attns))


@pytest.mark.parametrize("name", SPELLINGS)
def test_maps_out_of_a_single_operator_are_those_of_the_eager_spelling(name):
    found = {}
    for attn in ("eager", "sdpa"):
        program = fx_program(name, attn)
        one = probes(program, 3)[-1]
        blocks = recognise(view(program)).attention
        nodes = [map_nodes(block) for block in blocks]
        graph = watched(program.graph, [node for each in nodes for node in each])
        with torch.no_grad():
            values = list(graph(*arguments(program, one)))[len(program.outputs) :]
        found[attn] = []
        for block, each in zip(blocks, nodes, strict=True):
            mine, values = values[: len(each)], values[len(each) :]
            found[attn].append(Maps(1.0, 0, [], [], program=program).rows(block, one, mine))
    assert len(found["eager"]) == len(found["sdpa"]) > 0
    for a, b in zip(found["eager"], found["sdpa"], strict=True):
        assert a.shape == b.shape
        sees = b.sum(-1) != 0  # a query that sees no key has no row; the eager spelling gives it any
        torch.testing.assert_close(a[sees], b[sees], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(b.sum(-1)[sees], torch.ones(int(sees.sum())))
        assert float(sees.float().mean()) > 0.5


@pytest.mark.parametrize(("teacher", "student"), [(3, 3), (4, 2)])
def test_maps_are_compared_head_by_head_or_by_their_means(teacher, student):
    program = fx_program("bert")
    a, b = (softmax(RNG.standard_normal((3, heads, 4, 4))) for heads in (teacher, student))
    block = replace(recognise(view(program)).attention[0], probabilities=object(), heads=student)
    term = Maps(1.0, 0, [], [], program=program, teacher=block, student=block)
    found = term.distance(FEED, [torch.from_numpy(a)], [torch.from_numpy(b)])
    if teacher != student:
        a, b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    assert float(found) == pytest.approx(divergence(a, b).transpose(0, 2, 1)[REAL].mean(), rel=1e-5)


def test_relations_are_of_the_values_of_real_tokens():
    program = fx_program("bert")
    block = recognise(view(program)).attention[0]
    assert native(block.value) is not None
    assert block.layouts[2] == "bhld"
    value = tensors(3, block.heads, 4, block.head_dim)[0]
    found = Relations(1.0, 0, [], [], program=program, teacher=block, student=block).rows(
        block, FEED, [value]
    )
    v = double(value)[0]
    scores = np.einsum("bhid,bhjd->bhij", v, v) / np.sqrt(block.head_dim)
    scores = np.where(REAL[:, None, None], scores, -np.inf)
    np.testing.assert_allclose(found.numpy(), softmax(scores), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layout", ["bhld", "bhdl", "blhd", "(bh)ld", "bld", "b1ld", "1bld"])
def test_every_layout_of_heads_is_read(layout):
    heads = 3 if "h" in layout else 1
    x = torch.arange(2 * heads * 4 * 5).reshape(2, heads, 4, 5)
    laid = {
        "bhld": x,
        "bhdl": x.transpose(2, 3),
        "blhd": x.transpose(1, 2),
        "(bh)ld": x.reshape(2 * heads, 4, 5),
        "bld": x[:, 0],
        "b1ld": x[:, :1],
        "1bld": x[None, :, 0],
    }
    assert torch.equal(heads_first(laid[layout], layout, heads), x)

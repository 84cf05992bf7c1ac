"""What shared weights are fitted to, against NumPy's least squares in float64 on PyTorch's layers."""

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.fx.graph import attribute
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.share.layers.scales import Scales, normalised
from graphwright.passes.share.layers.seen import DAMPING, Round, uses, write
from graphwright.passes.share.tie_layers import TieLayers
from sharing import Blocks, blocks
from torch import nn


@pytest.fixture(scope="module")
def seen():
    teacher = blocks(40, 40)
    student = TieLayers(init="mean").run(teacher.clone(), Context()).program
    feeds = [{"input_ids": np.random.default_rng(n).integers(0, 83, (4, 10))} for n in range(5)]
    shared = {name for name, _ in student.graph.named_parameters() if name.startswith("blocks.0")}
    return student, Round(student, teacher, feeds, uses(student, shared)[0]), feeds


def watched(module, feeds, *parts):
    """(rows, width) that parts were given, and that they gave, in float64."""
    given, gave = {part: [] for part in parts}, {part: [] for part in parts}

    def hook(part):
        def look(_, inputs, output):
            given[part].append(inputs[0].reshape(-1, inputs[0].shape[-1]).numpy())
            gave[part].append(output.reshape(-1, output.shape[-1]).numpy())

        return look

    module = module.double()
    for part in parts:
        module.get_submodule(part).register_forward_hook(hook(part))
    with torch.no_grad():
        for feed in feeds:
            module(torch.from_numpy(feed["input_ids"]))
    return [{part: np.concatenate(rows) for part, rows in each.items()} for each in (given, gave)]


def meaned():
    module = Blocks(40, 40)
    first, second = (dict(block.named_parameters()) for block in module.blocks)
    for name, parameter in first.items():
        parameter.data = second[name].data = (parameter.data + second[name].data) / 2
    return module


PARTS = [f"blocks.{n}.{part}" for n in (0, 1) for part in ("ln_1", "ln_2", "up", "down")]


def solved(x, target, weight, bias):
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    before = np.concatenate([weight.T, bias[None]])
    gram = x.T @ x
    pull = DAMPING * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + pull * np.eye(len(gram)), x.T @ target + pull * before)


def test_weights_are_the_least_squares_over_all_layers(seen):
    student, run, feeds = seen
    gave = watched(Blocks(40, 40), feeds, *PARTS)[1]
    given, _ = watched(meaned(), feeds, *PARTS)
    parameters = {name: p.detach().double().numpy() for name, p in meaned().named_parameters()}
    own = student.clone()
    write(own.graph, run.seen["blocks.0.up.weight"])
    wanted = solved(
        np.concatenate([given[f"blocks.{n}.up"] for n in (0, 1)]),
        np.concatenate([gave[f"blocks.{n}.up"] for n in (0, 1)]),
        parameters["blocks.0.up.weight"], parameters["blocks.0.up.bias"],
    )  # fmt: skip
    found = attribute(own.graph, "blocks.0.up.weight").detach().numpy()
    np.testing.assert_allclose(found, wanted[:-1].T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        attribute(own.graph, "blocks.0.up.bias").detach().numpy(), wanted[-1], rtol=1e-3, atol=1e-4
    )


def test_what_joins_the_stream_makes_up_for_what_the_stream_lacks(seen):
    """Its target: the original's stream after it, less the stream that the shared layers made before it."""
    student, run, feeds = seen
    whole = watched(Blocks(40, 40), feeds, *PARTS)
    shared = watched(meaned(), feeds, *PARTS)
    weight, bias = (
        p.detach().double().numpy() for n, p in meaned().named_parameters() if n.startswith("blocks.0.down")
    )
    targets = [
        whole[0][f"blocks.{n}.ln_2"] + whole[1][f"blocks.{n}.down"] - shared[0][f"blocks.{n}.ln_2"]
        for n in (0, 1)
    ]
    wanted = solved(
        np.concatenate([shared[0][f"blocks.{n}.down"] for n in (0, 1)]), np.concatenate(targets), weight, bias
    )
    own = student.clone()
    write(own.graph, run.seen["blocks.0.down.weight"])
    found = attribute(own.graph, "blocks.0.down.weight").detach().numpy()
    np.testing.assert_allclose(found, wanted[:-1].T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shifted", [True, False])
def test_a_norms_scale_and_shift_are_the_least_squares_of_each_feature(shifted):
    rng = np.random.default_rng(2)
    n, target = rng.normal(size=(50, 7)), rng.normal(size=(50, 7))
    scales = Scales(7, shifted)
    for rows in (slice(0, 20), slice(20, 50)):
        scales.add(torch.from_numpy(n[rows]), torch.from_numpy(target[rows]))
    scale, shift = scales.fitted(np.ones(7), np.zeros(7), damping=1e-12)
    for feature in range(7):
        columns = [n[:, feature], *([np.ones(50)] if shifted else [])]
        wanted = np.linalg.lstsq(np.stack(columns, 1), target[:, feature], rcond=None)[0]
        np.testing.assert_allclose(
            [scale[feature], *([shift[feature]] if shifted else [])], wanted, rtol=2e-2
        )


def test_normalised_rows_are_what_a_norm_scales():
    norm = recognise(view(blocks(40, 40))).norm[0]
    x = torch.randn(5, 36, generator=torch.Generator().manual_seed(0))
    wanted = nn.LayerNorm(36, eps=norm.epsilon, elementwise_affine=False).double()(x.double())
    assert float((normalised(norm, x) - wanted).abs().max()) < 1e-9

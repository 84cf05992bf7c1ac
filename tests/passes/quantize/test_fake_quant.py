"""fake-quant: what is rounded and to what (float64 NumPy), gradients, sharing, the zoo, and training."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import DataError, PipelineError
from graphwright.ir.execute import execute, observe
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.fake_quant import FakeQuant
from torch import nn
from training import arguments, calibrated, fake_quantized, fakes, linear_program, tensor

RTOL = 1e-6


def symmetric(weight, high):
    """Rows rounded to integers of magnitude `high` and less, in double precision."""
    scale = np.abs(weight).max(axis=1, keepdims=True) / high
    return np.rint(weight.astype(np.float64) / scale) * scale


@pytest.mark.parametrize(("weights", "high"), [("full", 127), ("reduced", 64)])
def test_a_linear_layer_computes_with_what_integers_can_say(weights, high):
    program = linear_program()
    context = calibrated(program)
    found = fake_quantized(program, context, weights=weights)
    assert found.statistics == {"weights": 1, "activations": 1, "weight levels": 2 * high + 1}
    seen = np.concatenate([feed["x"].ravel() for feed in context.calibration]).astype(np.float64)
    scale = (seen.max() - seen.min()) / 255
    zero = np.rint(-seen.min() / scale)
    parameters = dict(program.graph.named_parameters())
    weight, bias = (parameters[f"linear.{name}"].detach().numpy() for name in ("weight", "bias"))
    for feed, actual in zip(probes(program, 3), execute(found.program, probes(program, 3)), strict=True):
        x = (np.clip(np.rint(feed["x"] / scale) + zero, 0, 255) - zero) * scale
        expected = x @ symmetric(weight, high).T + bias
        np.testing.assert_allclose(actual["output"], expected, atol=1e-5)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_few_bits_take_the_range_that_loses_least(bits):
    program = linear_program(inputs=200)
    found = fake_quantized(program, bits=bits, activations="float").program
    node = fakes(found)[0][0]
    rounded = next(observe(found, [node.name], probes(program, 0)))[node.name]
    weight = program.graph.get_parameter("linear.weight").detach().numpy()
    high = 2 ** (bits - 1) - 1
    for row, plain in zip(rounded, weight, strict=True):
        assert len(np.unique(row)) <= 2 * high + 1
        error = ((row - plain) ** 2).sum()
        for share in np.arange(0.2, 1.01, 0.04):
            scale = np.abs(plain).max() * share / high
            other = np.clip(np.rint(plain / scale), -high, high) * scale
            assert error <= ((other - plain) ** 2).sum() * (1 + 1e-5)


def test_steps_follow_the_weights_as_they_train():
    found = fake_quantized(linear_program(), bits=8, weights="full").program
    weight = found.graph.get_parameter("linear.weight")
    node = fakes(found)[0][0]
    with torch.no_grad():
        weight.mul_(3)
    rounded = next(observe(found, [node.name], probes(found, 0)))[node.name]
    np.testing.assert_allclose(rounded, symmetric(weight.detach().numpy(), 127), rtol=1e-5, atol=1e-6)


def test_gradients_go_straight_through_and_stop_where_a_value_is_clipped():
    program = linear_program(bias=False)
    found = fake_quantized(program, weights="full").program
    step, zero = (tensor(found, node) for node in fakes(found)[1][0].args[1:3])
    x = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0)) * 2
    x.requires_grad_()
    found.graph(x)[0].sum().backward()
    codes = np.rint(x.detach().numpy() / step) + zero
    kept = (codes >= 0) & (codes <= 255)
    assert 0.5 < kept.mean() < 1
    weight = found.graph.get_parameter("linear.weight")
    rounded = symmetric(weight.detach().numpy(), 127)
    np.testing.assert_allclose(x.grad.numpy(), np.where(kept, rounded.sum(0), 0), atol=1e-5)
    clipped = (np.clip(codes, 0, 255) - zero) * step
    expected = np.broadcast_to(clipped.sum((0, 1)), weight.shape)
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-4, atol=1e-4)


# nn.Linear and nn.Conv1d of the model code by weight, and distinct activations that enter them.
ZOO = {
    "bert": (12, 8),  # q, k and v share theirs
    "albert": (7, 9),  # one layer twice
    "gpt2": (9, 9),
    "llama": (15, 9),  # gate and up share theirs
    "t5": (33, 22),
    "squeezebert": (3, 3),  # Conv1d of one group, and the pooler
    "nanogpt": (9, 9),
    "einsum": (12, 8),
    "vit": (12, 8),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "t5" else n for n in ZOO])
def test_the_zoo(name):
    program = zoo.fx_program(name)
    context = calibrated(program, target=None)
    before = program.fingerprint()
    result = fake_quantized(program, context, weights="full")
    assert (result.statistics["weights"], result.statistics["activations"]) == ZOO[name]
    assert program.fingerprint() == before
    assert recognise(view(result.program)).summary() == recognise(view(program)).summary()
    weights, activations = fakes(result.program)
    assert (len(weights), len(activations)) == ZOO[name]
    products = [
        user for node in weights for user in node.users if user.target is torch.ops.aten.linear.default
    ]
    assert all(user.args[0] in activations for user in products)
    pairs = zip(
        execute(program, context.calibration), execute(result.program, context.calibration), strict=True
    )
    for expected, found in pairs:
        for output in program.outputs:
            a, b = expected[output].ravel(), found[output].ravel()
            known = np.isfinite(a)
            assert (a[known] * b[known]).sum() > 0.999 * np.linalg.norm(a[known]) * np.linalg.norm(b[known])
            assert not np.array_equal(a, b)


def test_the_zoo_trains():
    for name in ("bert", "gpt2"):
        program = zoo.fx_program(name)
        found = fake_quantized(program, bits=4, learned=True, noise=0.5).program
        outputs = found.graph(*arguments(program, probes(program, 1)[3]))
        sum(output.square().mean() for output in outputs).backward()
        flat = [
            n for n, p in found.graph.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
        ]
        assert not flat, flat


def test_a_weight_with_several_readers_is_rounded_once_and_its_lookups_stay():
    program = zoo.fx_program("nanogpt", "eager")
    found = fake_quantized(program, weights="full").program
    tied = [node for node in fakes(found)[0] if tuple(node.args[0].meta["val"].shape) == (83, 36)]
    assert len(tied) == 1
    assert [user.target for user in tied[0].users] == [torch.ops.aten.linear.default]
    with_tables = fake_quantized(program, weights="full", embeddings=True)
    tied = [
        node for node in fakes(with_tables.program)[0] if tuple(node.args[0].meta["val"].shape) == (83, 36)
    ]
    assert len(tied) == 1
    assert {user.target for user in tied[0].users} == {
        torch.ops.aten.linear.default, torch.ops.aten.embedding.default
    }  # fmt: skip
    assert with_tables.statistics["weights"] == ZOO["nanogpt"][0] + 1  # positions too


def test_a_weight_that_several_nodes_read_is_rounded_once():
    program = linear_program(24, 24)
    graph = program.graph.graph
    linear = next(node for node in graph.nodes if node.target is torch.ops.aten.linear.default)
    with graph.inserting_before(linear.next):
        second = graph.get_attr(linear.args[1].target)
        again = graph.call_function(linear.target, (linear, second))
    second.meta["val"], again.meta["val"] = linear.args[1].meta["val"], linear.meta["val"]
    linear.replace_all_uses_with(again, delete_user_cb=lambda user: user is not again)
    program.graph.recompile()
    found = fake_quantized(program)
    assert found.statistics == {"weights": 1, "activations": 2, "weight levels": 129}
    assert [user.target for user in fakes(found.program)[0][0].users] == [linear.target] * 2


def test_a_training_loop_lowers_the_loss_at_several_shapes():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
    program = capture(module, inputs=(torch.randn(8, 16),))
    context = calibrated(program)
    for options in ({"bits": 8}, {"bits": 2, "learned": True}, {"bits": 3, "noise": 0.5}):
        found = fake_quantized(program, context, **options).program
        run = Pipeline.parse("set-mode{training=true}").run(found)
        graph = run.program.graph
        adam = torch.optim.AdamW(graph.parameters(), lr=0.01)
        torch.manual_seed(1)
        x = torch.randn(256, 16)
        y = x[:, :4].argmax(-1)
        losses = []
        for step in range(60):
            chosen = torch.randint(0, 256, (16 + step % 5,))
            loss = nn.functional.cross_entropy(graph(x[chosen])[0], y[chosen])
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(float(loss.detach()))
        assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10]), (options, losses)


def test_it_is_the_same_every_time_and_every_prefix_of_it_is_a_program():
    program = zoo.fx_program("bert")
    context = calibrated(program)
    prints = {
        fake_quantized(program, context, learned=True, noise=0.5).program.fingerprint() for _ in range(2)
    }
    assert len(prints) == 1
    for count in (0, 1, 12, 13):
        left = iter(range(count))
        prefix = Context(
            calibration=context.calibration, allow=lambda rewrite, left=left: next(left, None) is not None
        )
        result = fake_quantized(program, prefix)
        assert result.modified == (count > 0)
        assert sum(map(len, fakes(result.program))) == count
        execute(result.program, probes(program, 1))


def test_a_fake_quantized_model_is_kept_whole():
    found = fake_quantized(linear_program()).program
    again = FakeQuant().run(found.clone(), calibrated(found))
    assert not again.modified
    assert "quantized already" in again.notes[0]


@pytest.mark.usefixtures("as_written")
def test_what_stays_in_float_is_told():
    half = capture(linear_program().graph.bfloat16(), inputs=(torch.randn(4, 7, 24).bfloat16(),))
    result = FakeQuant().run(half, calibrated(half))
    assert not result.modified
    assert any("bfloat16" in note for note in result.notes)
    program = linear_program()
    with torch.no_grad():
        program.graph.get_parameter("linear.weight").zero_()
    result = fake_quantized(program)
    assert any("all zeros" in note for note in result.notes)
    assert np.isfinite(execute(result.program, probes(program, 1))[0]["output"]).all()


def test_bad_data_and_bad_options_are_refused():
    program = linear_program()
    with pytest.raises(PipelineError, match="needs calibration data"):
        Pipeline.parse("fake-quant").run(program)
    feed = {"x": np.full((2, 3, 24), np.nan, np.float32)}
    with pytest.raises(DataError, match="NaN"):
        FakeQuant().run(program.clone(), Context(calibration=[feed]))
    with pytest.raises(ValueError, match="bits is 5"):
        FakeQuant(bits=5)


def test_the_manager_runs_it_on_a_program_in_training():
    program = zoo.fx_program("bert")
    run = Pipeline.parse("set-mode,fake-quant{bits=4,noise=0.5},set-mode{training=false}").run(
        program, calibrated(program)
    )
    assert run.ok, run.steps[-1].error
    plain = Pipeline.parse("fake-quant{bits=4,noise=0.5}").run(program, calibrated(program))
    assert run.program.fingerprint() == plain.program.fingerprint()

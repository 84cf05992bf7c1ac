"""Norms that give way to affine maps: what is computed on the way, and what is left at the end."""

import numpy as np
import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.errors import PassError
from graphwright.ir.execute import execute
from graphwright.ir.view import view
from graphwright.passes.common.outputs import arguments
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.teaching import annealed
from graphwright.passes.recover.teaching.annealed import Annealed, mixed
from graphwright.passes.recover.training.checkpoints import Checkpoints
from graphwright.passes.simplify.nonorm import Nonorm
from recovery import SHORT, context, feeds_of
from torch import nn
from zoo import fx_program


def nonormed(name):
    return Nonorm(init="weights").run(fx_program(name).clone(), Context()).program


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_mixture_is_what_the_formula_says(kind, share):
    torch.manual_seed(0)
    norm = kind(8)
    norm.weight.data = torch.rand(8) + 0.5
    module = nn.ModuleDict({"norm": norm, "linear": nn.Linear(8, 8)})

    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = module

        def forward(self, x):
            return torch.tanh(self.parts["linear"](self.parts["norm"](x)))

    teacher = capture(Before().eval(), inputs={"x": torch.randn(2, 3, 8)})
    student = Nonorm(init="weights").run(teacher.clone(), Context()).program
    graph, number, count = mixed(student, teacher)
    number.fill_(share)
    x = torch.randn(4, 5, 8)
    with torch.no_grad():
        bias = norm.bias if kind is nn.LayerNorm else 0
        expected = torch.tanh(module["linear"]((1 - share) * norm(x) + share * (x * norm.weight + bias)))
        found = graph(x)
    assert count == 1
    torch.testing.assert_close(
        found[0] if isinstance(found, tuple) else found, expected, atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["bert", "llama", "albert"])
def test_it_goes_from_the_model_to_the_program(name):
    teacher, student = fx_program(name), nonormed(name)
    fingerprint = student.fingerprint()
    graph, share, count = mixed(student, teacher)
    assert count == len(recognise(view(teacher)).norm)
    assert student.fingerprint() == fingerprint
    feed = feeds_of(teacher, 1)[0]
    for value, reference in ((0.0, teacher), (1.0, student)):
        share.fill_(value)
        with torch.no_grad():
            found = graph(*arguments(student, feed))[0].numpy()
        expected = execute(reference, [feed])[0][teacher.outputs[0]]
        np.testing.assert_allclose(found, expected, atol=3e-6, rtol=1e-5)


def test_the_share_grows_by_a_line_and_what_is_held_out_judges_the_maps_alone():
    student, teacher = nonormed("bert"), fx_program("bert")
    run = Annealed(student, teacher, [], until=0.5)
    feed, seen = feeds_of(teacher, 1)[0], []
    for share in (0.0, 0.25, 0.5, 0.9):
        run(feed, share)
        seen.append(float(run.share))
    assert seen == [0.0, 0.5, 1.0, 1.0]
    with torch.no_grad():
        run(feed, 0.1)
    assert float(run.share) == 1.0


def test_training_leaves_the_maps_alone(monkeypatch):
    shares = []
    call = Annealed.__call__

    def noted(self, feed, share):
        found = call(self, feed, share)
        if torch.is_grad_enabled():
            shares.append(float(self.share))
        return found

    monkeypatch.setattr(annealed.Annealed, "__call__", noted)
    program, student = fx_program("bert"), nonormed("bert")
    run = Pipeline([Distill(**SHORT, anneal=0.5, patience=0)]).run(student, context(program))
    assert run.ok, run.steps[0].error
    assert "norms that give way to affine maps: 5" in run.steps[0].notes
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[6:] == [1.0] * 6
    assert [norm.kind for norm in recognise(view(run.program)).norm] == ["no_norm"] * 5
    names = {name for name, _ in student.graph.named_parameters()}
    assert {name for name, _ in run.program.graph.named_parameters()} == names
    gamma = recognise(view(run.program)).norm[0].weight.tensor
    assert not torch.equal(gamma, recognise(view(student)).norm[0].weight.tensor)


def test_a_run_that_was_stopped_goes_on_alike(tmp_path):
    program, student = fx_program("bert"), nonormed("bert")

    def run(stop, folder):
        def progress(what, done, total):
            if done == stop and what.startswith("distill: loss"):
                raise KeyboardInterrupt

        where = context(program, cache=folder, progress=progress)
        return Distill(**SHORT, anneal=0.9, patience=0).run(student.clone(), where).program

    whole = run(None, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints.__init__, "__defaults__", (0.0,))
        with pytest.raises(KeyboardInterrupt):
            run(5, tmp_path / "b")
        assert run(None, tmp_path / "b").fingerprint() == whole.fingerprint()


def test_maps_that_stand_for_nothing_are_refused_in_a_sentence():
    with pytest.raises(PassError, match="put nonorm before, or leave anneal out"):
        Distill(**SHORT, anneal=0.5).run(fx_program("bert").clone(), context(fx_program("bert")))
    with pytest.raises(ValueError, match=r"anneal is 1\.5"):
        Distill(anneal=1.5)

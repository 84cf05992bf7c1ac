"""The trainer: against a loop written out, and with kills, full disks, tampering and several processes."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from graphwright.ir.errors import CheckpointError, DataError
from graphwright.passes.recover.training import checkpoints
from graphwright.passes.recover.training.checkpoints import Checkpoints
from graphwright.passes.recover.training.plan import Log
from graphwright.passes.recover.training.trainer import Plan, train
from torch import nn

PLAN = Plan(steps=40, rate=0.02, seed=3)


class Problem:
    """A small regression with dropout, so that a run depends on weights, order and random numbers alike."""

    def __init__(self, batches=7):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))
        inputs = torch.randn(batches, 6, 5)
        self.batches = [(x, torch.stack([x.sum(1), x[:, 0] * x[:, 1]], 1)) for x in inputs]
        self.named = dict(self.net.named_parameters())

    def loss(self, batch, share):
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def train(self, plan=PLAN, **settings):
        return train(self.named, self.loss, self.batches, plan, **settings)

    def weights(self):
        return torch.cat([p.detach().reshape(-1) for p in self.net.parameters()])


def by_hand(problem, plan):
    """The same run as a plain loop over torch.optim.AdamW."""
    matrices = [p for p in problem.net.parameters() if p.dim() > 1]
    vectors = [p for p in problem.net.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
    losses, number = [], 0
    for step in range(plan.steps):
        warm = (step + 1) / plan.steps / plan.warmup
        cool = (1 - step / plan.steps) / (1 - plan.warmup)
        for group in adam.param_groups:
            group["lr"] = plan.rate * min(1, warm if step / plan.steps < plan.warmup else cool)
        adam.zero_grad()
        total = 0
        for _ in range(plan.accumulate):
            epoch, place = divmod(number, len(problem.batches))
            order = np.random.default_rng([plan.seed, epoch]).permutation(len(problem.batches))
            torch.manual_seed(plan.seed * 1_000_003 + number)
            total = total + problem.loss(problem.batches[order[place]], 0) / plan.accumulate
            number += 1
        total.backward()
        nn.utils.clip_grad_norm_(problem.net.parameters(), plan.clip)
        adam.step()
        losses.append(float(total.detach()))
    return losses


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_is_adamw_on_batches_in_random_order(accumulate):
    plan = Plan(steps=30, rate=0.02, seed=3, accumulate=accumulate)
    one, other = Problem(), Problem()
    log = one.train(plan)
    np.testing.assert_allclose(log.losses, by_hand(other, plan), rtol=1e-5)
    torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-5, atol=1e-6)


def test_the_seed_decides_and_the_callers_random_numbers_go_on():
    torch.manual_seed(9)
    expected = torch.rand(3)
    first = Problem()
    torch.manual_seed(9)
    losses = first.train().losses
    assert torch.equal(torch.rand(3), expected)
    assert Problem().train().losses == losses
    assert Problem().train(Plan(steps=40, rate=0.02, seed=4)).losses != losses


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_trainer import PLAN, Problem
from graphwright.passes.recover.training.checkpoints import Checkpoints

problem = Problem()
loss, calls = problem.loss, []
def dying(batch, share):
    calls.append(share)
    if len(calls) == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(batch, share)
problem.loss = dying
problem.train(kept=Checkpoints(Path({folder!r}), {{"run": 1}}, seconds={seconds}))
"""


@pytest.mark.parametrize(("seconds", "taken_up"), [(0.0, 20), (1e9, 0)])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, seconds, taken_up):
    unbroken = Problem()
    expected = unbroken.train()
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path), calls=21, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], timeout=120)
    assert done.returncode == -9
    problem = Problem()
    log = problem.train(kept=Checkpoints(tmp_path, {"run": 1}))
    assert log.resumed == taken_up
    assert log.losses == expected.losses
    assert torch.equal(problem.weights(), unbroken.weights())


def test_a_finished_run_is_not_done_again(tmp_path):
    first = Problem()
    losses = first.train(kept=Checkpoints(tmp_path, {})).losses
    second = Problem()
    second.loss = None
    log = second.train(kept=Checkpoints(tmp_path, {}))
    assert (log.losses, log.resumed) == (losses, 40)
    assert torch.equal(first.weights(), second.weights())


def interrupted(folder, at=12):
    """A run that an exception stopped, its checkpoint of the step before on disk."""
    problem = Problem()
    loss, calls = problem.loss, []

    def stopping(batch, share):
        calls.append(share)
        if len(calls) > at:
            raise KeyboardInterrupt
        return loss(batch, share)

    problem.loss = stopping
    with pytest.raises(KeyboardInterrupt):
        problem.train(kept=Checkpoints(folder, {}, seconds=0))


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    interrupted(tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(tensors, path):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_file", full)
        log = Problem().train(kept=Checkpoints(tmp_path, {}, seconds=0))
    assert log.losses == Problem().train().losses
    assert log.notes == [f"checkpoints could not be written to {tmp_path}: No space left on device"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    again = Problem().train(kept=Checkpoints(tmp_path, {}))
    assert (again.resumed, again.losses) == (12, log.losses)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def advance(path):
    state = json.loads(path.read_text())
    state["facts"]["losses"].append(0.0)
    path.write_text(json.dumps(state))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda folder: flip(next(folder.glob("*.safetensors"))),
        lambda folder: next(folder.glob("*.safetensors")).unlink(),
        lambda folder: advance(folder / "state.json"),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").write_text("[]"),
    ],
)
def test_a_checkpoint_that_was_changed_is_refused(tmp_path, tamper):
    interrupted(tmp_path)
    tamper(tmp_path)
    with pytest.raises(CheckpointError, match="damaged or was changed: delete"):
        Problem().train(kept=Checkpoints(tmp_path, {}))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(CheckpointError, match="is of another run"):
        Problem().train(kept=Checkpoints(tmp_path, {"rate": 1}))


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with Checkpoints(tmp_path, {}).alone(), pytest.raises(CheckpointError, match="another process trains in"):
        Problem().train(kept=Checkpoints(tmp_path, {}))


def test_it_stops_early_and_takes_the_best_weights(tmp_path):
    problem = Problem()
    batch, target = problem.batches[0]
    # What is held out wants the opposite of what is trained: the first evaluation is the best.
    plan = Plan(steps=200, rate=0.02, patience=2)
    log = problem.train(plan, held_out=[(batch, -target)])
    assert [step for step, _ in log.held_out] == [10, 20, 30]
    assert len(log.losses) == 30
    assert log.notes == ["stopped early, after 30 of 200 steps"]
    short = Problem()
    assert not torch.equal(short.weights(), problem.weights())
    torch.manual_seed(0)  # of the first held-out batch
    with torch.no_grad():
        assert (
            float(problem.loss((batch, -target), 0)) == log.held_out[0][1] == min(v for _, v in log.held_out)
        )


def test_the_best_weights_survive_a_kill(tmp_path):
    plan = Plan(steps=200, rate=0.02, patience=2)

    def run(folder, stop=None):
        problem, calls = Problem(), []
        batch, target = problem.batches[0]
        loss = problem.loss

        def counted(batch, share):
            calls.append(share)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return loss(batch, share)

        problem.loss = counted
        log = problem.train(plan, held_out=[(batch, -target)], kept=Checkpoints(folder, {}, seconds=0))
        return log.held_out, problem.weights()

    expected, weights = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop=27)
    held_out, resumed = run(tmp_path / "broken")
    assert held_out == expected
    assert torch.equal(weights, resumed)


def test_time_that_is_up_ends_it_with_a_rate_of_zero(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    shares, problem = [], Problem()
    loss = problem.loss
    problem.loss = lambda batch, share: shares.append(share) or loss(batch, share)
    log = problem.train(Plan(steps=10**6, rate=0.02, minutes=1.0))
    assert len(log.losses) < 60
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_progress_tells_loss_and_time_left():
    told = []
    Problem().train(progress=lambda *one: told.append(one), title="distilling")
    assert [one[1:] for one in told] == [(step, 40) for step in range(1, 41)]
    assert told[-1][0].startswith("distilling: loss 0.") or told[-1][0].startswith("distilling: loss 1.")
    assert told[-1][0].endswith("1 min left")


def test_curves_are_means_of_neighbouring_steps():
    log = Log(losses=[4.0, 2.0, 3.0, 1.0, 5.0], held_out=[(2, 2.5), (5, 2.0)])
    assert log.curves(most=3) == {
        "loss": [(2, 3.0), (4, 2.0), (5, 5.0)],
        "held-out loss": [(2, 2.5), (5, 2.0)],
    }
    assert Log(losses=[1.0, 2.0]).curves() == {"loss": [(1, 1.0), (2, 2.0)]}
    assert len(Log(losses=[0.0] * 401).curves()["loss"]) <= 200


def test_bad_input_is_refused_in_words():
    with pytest.raises(DataError, match="nothing to train on"):
        train(Problem().named, None, [], PLAN)
    problem = Problem()
    problem.loss = lambda batch, share: problem.net[0].weight.sum() * float("nan")
    with pytest.raises(DataError, match="not finite at step 1: try a lower rate"):
        problem.train()


TWO = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from test_trainer import Problem
from graphwright.passes.recover.training.checkpoints import Checkpoints
from graphwright.passes.recover.training.trainer import Plan
from graphwright.passes.recover.training.workers import join

problem = Problem()
if join().rank == 1:  # everyone starts from process 0's numbers
    problem.net[0].weight.data.zero_()
folder, plan = Path({folder!r}), Plan(steps=15, rate=0.02, seed=3)
log = problem.train(plan, held_out=problem.batches[:3], kept=Checkpoints(folder / "kept", {{}}))
torch.save({{"weights": problem.weights(), "log": vars(log)}}, folder / f"{{join().rank}}.pt")
"""


@pytest.mark.slow
def test_two_processes_are_one_that_accumulates(tmp_path):
    code = tmp_path / "two.py"
    code.write_text(TWO.format(tests=os.path.dirname(__file__), folder=str(tmp_path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*launcher, str(code)], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    problem = Problem()
    plan = Plan(steps=15, rate=0.02, seed=3, accumulate=2)
    log = problem.train(plan, held_out=problem.batches[:3])
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found["weights"], problem.weights(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["log"]["losses"], log.losses, rtol=1e-4)
        np.testing.assert_allclose(found["log"]["held_out"], log.held_out, rtol=1e-4)


def test_bfloat16_is_for_products_alone():
    problem, seen = Problem(), []
    loss = problem.loss

    def noted(batch, share):
        seen.append(problem.net[0](batch[0]).dtype)
        return loss(batch, share)

    problem.loss = noted
    log = problem.train(Plan(steps=40, rate=0.02, seed=3, precision="bfloat16"))
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in problem.net.parameters()} == {torch.float32}
    exact = Problem().train().losses
    assert log.losses != exact
    np.testing.assert_allclose(log.losses, exact, rtol=0.05)

"""Weights in parts over two processes: the same gradients and the same weights as in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from graphwright.ir.errors import PipelineError
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.training.own import keep_zeros
from graphwright.passes.recover.training.shards import in_parts
from graphwright.passes.recover.training.workers import Workers
from sharded import RUNS, learned

SUPPORT = str(Path(__file__).parents[2] / "support")
TWO = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
import torch
from graphwright.passes.recover.training.workers import join
from sharded import RUNS, learned

found = [learned(shard=True, **options) for options in RUNS]
torch.save(found, Path({folder!r}, str(join().rank)))
"""


@pytest.mark.slow
def test_two_processes_with_half_the_weights_each_learn_as_one(tmp_path):
    """Float32 rounding: to 1e-5 of the largest gradient of a tensor; weights to 1e-5 after three steps, which
    move them by some 1e-2."""
    code = tmp_path / "two.py"
    code.write_text(TWO.format(support=SUPPORT, folder=str(tmp_path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(code)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / rank) for rank in "01")
    for options, mine, other in zip(RUNS, first, second, strict=True):
        alone = learned(accumulate=2, **options)
        assert mine["weights"].keys() == alone["weights"].keys()
        for name, weight in mine["weights"].items():
            assert torch.equal(weight, other["weights"][name]), name
            torch.testing.assert_close(weight, alone["weights"][name], rtol=0, atol=1e-5, msg=name)
        for which in ("gradients", "clipped"):
            assert len(mine[which]) == len(alone[which]) > 10
            for got, expected in zip(mine[which], alone[which], strict=True):
                assert (got is None) == (expected is None)
                if got is not None:
                    scale = float(expected.abs().max())
                    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * scale + 1e-12)
        assert mine["shares"] < 0.6 * alone["shares"]  # numbers that a process holds of what learns


def test_alone_it_changes_nothing():
    plain, sharded = learned(), learned(shard=True)
    for name, weight in plain["weights"].items():
        assert torch.equal(weight, sharded["weights"][name])


def test_what_cannot_be_parted_is_said():
    sparse = torch.nn.Parameter(torch.eye(4))
    keep_zeros([sparse])
    module = torch.nn.Linear(2, 2)
    with (
        pytest.raises(PipelineError, match="leave shard out"),
        in_parts(module, module, {"sparse": sparse}, Workers()),
    ):
        pass
    with pytest.raises(ValueError, match="a run in parts keeps no checkpoint"):
        Distill(shard=True, checkpoint="somewhere")
    with pytest.raises(ValueError, match="anneal has two"):
        Distill(shard=True, anneal=0.5)

"""prune-structure: each block keeps what was asked for, and projections that stay are refitted."""

import numpy as np
import pytest
import zoo
from graphwright.ir.blocks import recognise
from graphwright.ir.errors import PipelineError
from graphwright.ir.execute import execute
from graphwright.ir.view import view
from graphwright.passes.manager.varying import Each
from graphwright.passes.prune.prune_structure import PruneStructure
from pruning import run, shapes


def feeds(case="bert", count=4):
    return [
        {k: v.numpy() for k, v in zoo.ARCHITECTURES[case].inputs(4, 9, seed=i).items()} for i in range(count)
    ]


def pruned(keep, program, **more):
    options = "".join(f",{name}={value}" for name, value in more.items())
    return run(f"prune-structure{{keep=({','.join(map(str, keep))}){options}}}", program, calibration=feeds())


def test_layers_keep_unequal_numbers_of_heads_and_neurons():
    program = zoo.fx_program("bert")
    done = pruned((3, 48, 1, 16), program)
    assert done.ok, done.steps[0].error
    found = recognise(view(done.program))
    assert [block.heads for block in found.attention] == [3, 1]
    assert [block.width for block in found.feed_forward] == [48, 16]
    assert set(shapes(done.program)) == set(shapes(program))
    statistics = done.steps[0].statistics
    assert (statistics["heads kept"], statistics["neurons kept"]) == ("3/4 1/4", "48/72 16/72")
    assert statistics["after"] < statistics["error before refitting"]


def test_with_everything_kept_nothing_happens():
    (step,) = pruned((4, 72, 4, 72), zoo.fx_program("bert")).steps
    assert step.status == "no change"


def test_refitting_brings_the_outputs_nearer():
    program, batch = zoo.fx_program("bert"), feeds()
    expected = execute(program, batch)

    def error(**more):
        got = execute(pruned((2, 32, 2, 32), program, **more).program, batch)
        return sum(float(np.square(a - b).sum()) for x, y in zip(expected, got, strict=True)
                   for a, b in zip(x.values(), y.values(), strict=True))  # fmt: skip

    assert error() < 0.9 * error(refit="none")


def test_what_a_search_tries_fits_the_blocks():
    ranges = PruneStructure.varying(zoo.fx_program("bert"))
    assert ranges == {"keep": Each(((0, 1, 2, 3, 4), (0, 14, 29, 43, 58, 72)) * 2)}
    assert PruneStructure.varying(zoo.onnx_program("bert")) == {}


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ((), "keep has 0 numbers and the model 4 blocks"),
        ((1, 2), "keep has 2 numbers and the model 4 blocks, of 4, 72, 4, 72 units: give one for each"),
        ((5, 72, 4, 72), "keep asks for 5 units of block 1, which has 4"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(keep, sentence):
    (step,) = pruned(keep, zoo.fx_program("bert")).steps
    assert step.status == "refused"
    assert sentence in str(step.error)


@pytest.mark.parametrize("options", ["{keep=(1,-2)}", "{keep=(1,),damping=0}", "{keep=(1,),tokens=0}"])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(PipelineError, match=r"keep is|needs it above|need it above|at least one"):
        run(f"prune-structure{options}", None)

"""quantize-ternary: bits a weight, what learning brings back, and every architecture."""

import pytest
from graphwright.ir.blocks import recognise
from graphwright.ir.view import view
from graphwright.passes.common.fx_weights import find
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.quantize_ternary import QuantizeTernary
from recovery import feeds_of
from zoo import ARCHITECTURES, fx_program


def test_fifteen_times_smaller_on_wide_weights():
    program = fx_program("bert")
    result = QuantizeTernary(scales="matrix", embeddings=False, steps=0).run(program.clone(), Context())
    numbers = sum(m.tensor.numel() for m in find(program)[0] if not m.lookups)
    shared = 256 * 4 * 2  # bytes of the table that unpacks
    scales = 12 * 2
    assert result.statistics["bits a weight"] == pytest.approx(
        8 * (numbers / 4 + shared + scales) / numbers, rel=1e-3
    )


def test_learning_brings_the_outputs_back_and_is_deterministic():
    program = fx_program("bert")
    before = program.fingerprint()
    feeds = feeds_of(program, 24)
    runs = [
        Pipeline.parse("quantize-ternary{steps=40,rate=0.02}").run(program, Context(calibration=feeds))
        for _ in range(2)
    ]
    assert all(run.ok for run in runs), runs[0].steps[0].error
    assert program.fingerprint() == before
    assert runs[0].program.fingerprint() == runs[1].program.fingerprint()
    statistics = runs[0].steps[0].statistics
    assert statistics["loss"] < 0.8 * statistics["loss before learning"]
    assert statistics["cosine"] > statistics["cosine before learning"]


@pytest.mark.slow  # every architecture is captured
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_coded_and_still_recognised(name):
    program = fx_program(name)
    result = QuantizeTernary(steps=0).run(program.clone(), Context())
    assert result.modified
    assert recognise(view(result.program)).summary() == recognise(view(program)).summary()

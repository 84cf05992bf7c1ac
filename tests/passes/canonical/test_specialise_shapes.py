"""specialise-shapes: symbols that are told are gone, and those that cannot be are refused."""

import onnx_ir
import pytest
from canonical import GOLDEN, after
from graphwright.ir.errors import PipelineError
from graphwright.passes.manager.pipeline import Pipeline


def test_symbols_that_were_fixed_are_gone():
    program = after("specialise-shapes{length=6}", GOLDEN["specialise-shapes{batch=2,length=6}"])
    assert program.inputs[0].shape == ("batch", 6, 4)
    assert list(program.symbols) == ["batch"]
    assert program.graph.graph.inputs[0].shape == onnx_ir.Shape(["batch", 6, 4])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("specialise-shapes{others=((rows,3),)}", "no input has a symbol 'rows' (there are: batch, length)"),
        ("specialise-shapes{length=65}", "length=65 is outside what the model takes, 1 to 64"),
    ],
)
def test_shapes_that_cannot_be(text, words):
    run = Pipeline.parse(text).run(GOLDEN["specialise-shapes{batch=2,length=6}"])
    assert isinstance(run.steps[0].error, PipelineError)
    assert words in str(run.steps[0].error)

"""Programs of both dialects, compiled, beside PyTorch: encoders, decoders, and models with two lengths."""

import numpy as np
import pytest
from graphwright.backends.runtimes.reference import Reference
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.errors import InputError
from graphwright.ir.inputs.probe import feed, probes
from zoo import fx_program, onnx_program

pytestmark = pytest.mark.slow  # most of it the export


@pytest.mark.parametrize("dialect", [fx_program, onnx_program])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_calls_between_two_sizes_are_what_pytorch_computes(name, dialect):
    program = dialect(name)
    buckets = [{"batch": 1, "length": 16}, {"batch": 4, "length": 40}]
    artifact = Tvm().build(program, threads=1, buckets=buckets)
    reference = Reference().build(fx_program(name), threads=1)
    for given in probes(program, 0):
        expected = reference.run(given)
        kept = given["attention_mask"] != 0 if "attention_mask" in given else slice(None)
        for output, found in artifact.run(given).items():
            assert found.shape == expected[output].shape
            np.testing.assert_allclose(found[kept], expected[output][kept], rtol=1e-4, atol=1e-4)


def test_two_lengths_run_at_compiled_sizes_and_in_any_batch():
    program = onnx_program("t5")
    first, second = (
        program.inputs[0].shape[1],
        next(spec.shape[1] for spec in program.inputs if spec.role == "decoder_token_ids"),
    )
    sizes = {"batch": 2, first: 9, second: 5}
    artifact = Tvm().build(program, threads=1, buckets=[sizes])
    reference = Reference().build(fx_program("t5"), threads=1)
    for batch in (1, 2, 5):
        given = feed(program, {**sizes, "batch": batch}, rng=np.random.default_rng(batch))
        expected = reference.run(given)
        for output, found in artifact.run(given).items():
            np.testing.assert_allclose(found, expected[output], rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"its .* is 8 and the model takes at least 9"):
        artifact.run(feed(program, {**sizes, first: 8}))

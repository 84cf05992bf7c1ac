"""fuse-embedding-norm: what it takes, what it leaves and why, and that numbers stay."""

import numpy as np
import pytest
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.passes.fuse.fuse_embedding_norm import FuseEmbeddingNorm
from graphwright.passes.manager.contract import Context
from zoo import onnx_program

pytestmark = pytest.mark.slow  # most of it the export of seven architectures

TOLERANCE = 2e-6  # float32 rounding through two layers of width 32


def fuse(name, **options):
    program = onnx_program(name)
    return program, FuseEmbeddingNorm(**options).run(program.clone(), Context())


def operators(program):
    return [node.op_type for node in program.graph.graph]


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra"])
def test_words_positions_and_types_become_one_kernel(name):
    program, result = fuse(name)
    assert result.statistics == {"embeddings fused": "1 of 1"}, result.notes
    assert operators(result.program).count("EmbedLayerNormalization") == 1
    assert operators(result.program).count("LayerNormalization") == 4
    feeds = probes(program, 3)
    for expected, found in zip(execute(program, feeds), execute(result.program, feeds), strict=True):
        for output, reference in expected.items():
            np.testing.assert_allclose(found[output], reference, atol=TOLERANCE, rtol=0)


def test_positions_that_count_need_no_ids():
    _, result = fuse("bert")
    node = next(n for n in result.program.graph.graph if n.op_type == "EmbedLayerNormalization")
    assert len(node.inputs) == 7


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt2", "something else reads the sum too"),
        ("llama", "rms_norm follows the sum, and the kernel has a LayerNorm with scale and shift"),
        ("modernbert", "layer_norm follows the sum, and the kernel has a LayerNorm with scale and shift"),
    ],
)
def test_what_does_not_fit_stays_and_says_why(name, reason):
    program, result = fuse(name)
    assert not result.modified
    assert reason in " ".join(result.notes)
    assert result.program.fingerprint() == program.fingerprint()


def test_a_refused_rewrite_is_not_done():
    program = onnx_program("bert")
    result = FuseEmbeddingNorm().run(program.clone(), Context(allow=lambda rewrite: False))
    assert not result.modified

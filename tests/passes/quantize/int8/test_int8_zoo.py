"""Int8 over the zoo, dynamic and static: the products put in int8, and what is said of the rest."""

import re
from collections import Counter

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.execute import execute
from graphwright.ir.inputs.probe import probes
from graphwright.ir.onnx.kernels import INTEGER, kernels
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from graphwright.passes.quantize.quantize_static import QuantizeStatic
from zoo import ARCHITECTURES, onnx_program

pytestmark = pytest.mark.slow  # most of it the export of the zoo

# nn.Linear calls of the model code: of two layers, and of what stands before and after them.
LINEARS = {
    "bert": 2 * 6,  # q, k, v, o, up, down
    "roberta": 2 * 6,
    "distilbert": 2 * 6,
    "electra": 2 * 6 + 1,  # embeddings_project
    "albert": 2 * 6 + 1,  # embedding_hidden_mapping_in, then one layer twice
    "mpnet": 2 * 6,
    # bottleneck input and attention, q, k, v, o, ffn[0] up and down, up, down, output bottleneck; and
    # the embedding's transformation
    "mobilebert": 2 * 11 + 1,
    "squeezebert": 1,  # the pooler: the rest is Conv1d
    "modernbert": 2 * 4,  # Wqkv, Wo, Wi, Wo
    "gpt2": 2 * 4 + 1,  # c_attn, c_proj, c_fc, c_proj, and lm_head
    "opt": 2 * 6 + 1,
    "llama": 2 * 7 + 1,  # gate too
    "qwen2": 2 * 7 + 1,
    "qwen3": 2 * 7 + 1,
    "t5": 2 * 6 + 2 * 10 + 1,  # the decoder has cross-attention: q, k, v, o once more
    "bart": 2 * 6 + 2 * 10,
    "whisper": 2 * 6,
    "vit": 2 * 6,
    "clip_text": 2 * 6,
    "clip_vision": 2 * 6,
    "deberta_v2": 2 * 6,
    "torch_encoder": 2 * 4,  # in_proj packed
    "nanogpt": 2 * 4 + 1,
    "einsum": 2 * 6,
}
CONVOLUTION = "a convolution: the int8 product takes features on the last axis"
CONSTANT = "nothing in it depends on the inputs: run fold-constants first"
FLOAT = {
    "squeezebert": {CONVOLUTION: 2 * 6},
    "deberta_v2": {CONSTANT: 2 * 2},  # each layer's projections of the relative positions' table
}


MODES = {
    "dynamic": QuantizeDynamic(min_cosine=0.0),
    "static": QuantizeStatic(min_cosine=0.0),
    "static, standard operators": QuantizeStatic(min_cosine=0.0, form="qdq"),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("mode", MODES)
def test_every_linear_is_in_int8_or_has_its_reason(mode, name):
    program = onnx_program(name)
    feeds = probes(program, 0)
    context = Context(target=named("x86-64-avx2"), calibration=feeds)
    result = MODES[mode].run(program.clone(), context)
    reasons = Counter(found[1] for note in result.notes if (found := re.search("stays in float, (.*)", note)))
    assert reasons == FLOAT.get(name, {})
    assert result.statistics["products in int8"] == LINEARS[name]
    assert result.statistics["left in float"] == sum(FLOAT.get(name, {}).values())
    made = [kernel.op_type for kernel in kernels(result.program.graph)]
    assert sum(op_type in INTEGER for op_type in made) == LINEARS[name]
    for expected, found in zip(execute(program, feeds), execute(result.program, feeds), strict=True):
        for output in program.outputs:
            assert found[output].shape == expected[output].shape
            defined = np.isfinite(expected[output]).all(axis=-1)  # rows that may look at nothing are NaN
            a, b = expected[output][defined], found[output][defined].astype(np.float64)
            cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            assert cosines.mean() > 0.999

"""A memory from end to end: the bundle remembers, and the export that doesn't is no candidate beside it."""

import graphwright as gw
import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.tools.verbs.optimize import optimize
from graphwright.tools.verbs.verify import verify


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=1,
        intermediate_size=40, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "tvm"])
def test_a_bundle_reads_a_text_in_segments(llama, backend, tmp_path):
    outcome = optimize(
        llama, tmp_path / "out", pipeline="segment-memory{length=16},to-onnx", shapes=("1x8",), threads=1,
        backend=backend, quick=True,
    )  # fmt: skip
    assert outcome.status == 0, [str(step.step.error) for step in outcome.steps]
    bundle = gw.load(outcome.bundle)
    assert bundle.output_names == ("logits", "new_memory_count", "new_memory_keys_0", "new_memory_values_0")
    ids = np.random.default_rng(0).integers(2, 60, (1, 21))
    stream, found = bundle.stream(), []
    for start, end in ((0, 8), (8, 9), (9, 16), (16, 21)):
        part = ids[:, start:end]
        found.append(stream.run({"input_ids": part, "attention_mask": np.ones_like(part)})["logits"])
    whole = capture(llama).graph(torch.from_numpy(ids), torch.ones(1, 21, dtype=torch.int64))[0]
    np.testing.assert_allclose(np.concatenate(found, 1), whole.detach(), rtol=0, atol=1e-5)
    assert stream.memory["memory_count"].tolist() == [21]
    for pair in ((llama, str(outcome.bundle)), (str(outcome.bundle), llama)):
        assert verify(*pair).same

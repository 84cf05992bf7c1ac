"""A speed-up that no structure reaches, from end to end: what is kept, and what the run says."""

import pytest
from graphwright.backends.running.runner import load
from graphwright.tools.verbs.optimize import optimize

TEXTS = ["a man plays", "the woman eats a red cat", "the big film is good", "a cat sits and runs"]


@pytest.mark.slow
def test_what_cannot_be_reached_is_said_saved_and_no_success(encoder_directory, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS * 5))
    pipeline = "prune-to-latency{speedup=100,workload=1x16,choices=1},to-onnx"
    outcome = optimize(
        encoder_directory,
        tmp_path / "out",
        pipeline=pipeline,
        calibrate=str(texts),
        shapes=("1x16",),
        threads=1,
    )
    assert outcome.status == 3
    (sentence,) = outcome.failures
    assert "no structure was found that is 100 times as fast: the best measures" in sentence
    assert "saved all the same" in sentence
    assert outcome.to_json()["steps"][0]["missed"] in sentence
    bundle = load(outcome.bundle)
    assert bundle.run(bundle.encode(TEXTS))["sentence_embedding"].shape == (4, 32)

"""Calls that a model refuses, until a pass of the pipeline lets it take them: from end to end."""

import pytest
from graphwright.backends.running.runner import load
from graphwright.ir.errors import MeasureError
from graphwright.tools.verbs.optimize import optimize

TEXT = " ".join(["the man plays a red film"] * 12)  # 72 words; the model takes 48 and has 64 places
FIRST = "extend-positions{length=96}"


def test_a_run_at_a_length_that_the_model_learns_to_take(encoder_directory, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([TEXT, TEXT.replace("red", "big"), "a cat sits", "the woman eats"]))
    pipeline = f"{FIRST},substitute-attention{{kind=window,window=8}},to-onnx"
    outcome = optimize(
        encoder_directory, tmp_path / "out", pipeline=pipeline, calibrate=str(texts), shapes=("1x96",),
        threads=1, quick=True,
    )  # fmt: skip
    assert [each.step.text.partition("{")[0] for each in outcome.steps] == [
        "extend-positions", "substitute-attention", "to-onnx",
    ]  # fmt: skip
    assert outcome.steps[0].status == "applied"
    record = outcome.to_json()
    assert record["pipeline"].startswith(f"{FIRST},substitute-attention")
    assert any("measured and judged beside the model with it" in note for note in record["notes"])
    bundle = load(outcome.bundle)
    feed = bundle.encode([TEXT])
    assert feed["input_ids"].shape == (1, 74)
    assert bundle.run(feed)["sentence_embedding"].shape == (1, 32)


def test_behind_others_the_length_is_refused(encoder_directory):
    with pytest.raises(MeasureError, match="1x96 needs length = 96 and the model takes at most 64"):
        optimize(
            encoder_directory, pipeline=f"prune-layers{{keep=1}},{FIRST},to-onnx", shapes=("1x96",),
            threads=1, quick=True,
        )  # fmt: skip

"""Another vocabulary from end to end: texts reach the passes, and the bundle reads as its table was made."""

import json

import numpy as np
import onnx
import pytest
from graphwright.backends.running.runner import load
from graphwright.tools.verbs.optimize import optimize

TEXTS = ["a man plays", "the woman eats a red cat", "the big film is good", "a cat sits and runs"]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcome(encoder_directory, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS * 5))
    return optimize(
        encoder_directory,
        tmp_path_factory.mktemp("out") / "bundle",
        pipeline="transfer-vocabulary{size=60},distill{steps=4,batch=4,embeddings=true},to-onnx",
        data=str(path),
        calibrate=str(path),
        shapes=("1x16",),
        threads=1,
        quick=True,
    )


def test_the_bundle_reads_as_its_table_was_made(outcome):
    assert outcome.status == 0, [str(step.step.error) for step in outcome.steps]
    bundle = load(outcome.bundle)
    vocabulary = json.loads((outcome.bundle / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocabulary) <= 60
    assert {spec.name: spec.high for spec in bundle.inputs}["input_ids"] == len(vocabulary)
    model = onnx.load(outcome.bundle / "model.onnx", load_external_data=False)
    assert (len(vocabulary), 32) in {tuple(each.dims) for each in model.graph.initializer}
    assert np.isfinite(bundle(TEXTS)).all()


def test_the_teacher_was_asked_in_its_own_tokens(outcome):
    steps = {step.step.text.partition("{")[0]: step.step for step in outcome.steps}
    assert steps["distill"].statistics["steps"] == 4
    assert "layers that learn from layers: 1:1,2:2" in steps["distill"].notes
    assert outcome.quality is not None

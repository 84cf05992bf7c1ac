"""A pruned vocabulary from end to end: the run, its bundle, and what the bundle is compared with."""

import json

import numpy as np
import pytest
from graphwright.backends.running.runner import load
from graphwright.tools.console import Console
from graphwright.tools.judge.quality import Fidelity
from graphwright.tools.verbs.bench import bench
from graphwright.tools.verbs.optimize import optimize

TEXTS = ["a man plays", "the woman eats a red cat", "the big film is good", "a cat sits and runs"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS * 5))
    return path


@pytest.fixture(scope="module")
def outcome(encoder_directory, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "bundle"
    return optimize(
        encoder_directory,
        out,
        pipeline="prune-vocabulary{characters=seen},to-onnx",
        data=str(texts),
        calibrate=str(texts),
        shapes=("1x16", "mixed:8"),
        threads=1,
    )


def test_the_bundle_reads_and_answers_as_the_model_did(outcome, encoder_directory, tmp_path):
    assert outcome.status == 0, [str(step.step.error) for step in outcome.steps]
    whole = optimize(encoder_directory, tmp_path / "whole", pipeline="to-onnx", shapes=("1x16",), threads=1)
    before, after = load(whole.bundle), load(outcome.bundle)
    np.testing.assert_array_equal(
        after.run(after.encode(TEXTS))["sentence_embedding"],
        before.run(before.encode(TEXTS))["sentence_embedding"],
    )
    high = {spec.name: spec.high for spec in after.inputs}["input_ids"]
    assert high < {spec.name: spec.high for spec in before.inputs}["input_ids"]
    assert after.encode(["zebras quietly"])["input_ids"].max() < high


def test_quality_is_that_of_texts_read_anew(outcome):
    """On texts whose tokens are all kept nothing is lost: with ids of the old tokenizer, all would be."""
    assert outcome.quality.drop == pytest.approx(0, abs=1e-4)


def test_the_graph_with_another_vocabulary_is_not_in_the_bundle(outcome):
    assert set(outcome.dispatch.values()) == {"main"}


def test_what_is_rounded_behind_it_is_told_by_layer_and_by_block(encoder_directory, texts, tmp_path):
    """Calls that are measured have ids of the whole vocabulary, and it has rows for few."""
    rounded = optimize(
        encoder_directory,
        tmp_path / "bundle",
        pipeline="prune-vocabulary{characters=seen},to-onnx,store-half",
        data=str(texts),
        calibrate=str(texts),
        shapes=("1x16",),
        threads=1,
    )
    assert rounded.status == 0, [str(step.step.error) for step in rounded.steps]
    assert rounded.layers
    assert not any("where the time goes" in note for note in rounded.notes)
    report = json.loads((rounded.bundle / "manifest.json").read_text())
    assert report["profile"]["after"]


def test_it_is_timed_beside_models_with_more_tokens(outcome, encoder_directory):
    timed = bench([str(encoder_directory), str(outcome.bundle)], ["1x16"], 1, 0, Console(quiet=True))
    assert timed.comparison.cells[str(outcome.bundle)]["1x16"].ms > 0


def test_hidden_states_of_other_tokens_are_compared_by_their_mean():
    old = {"h": np.array([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])}
    new = {"h": np.array([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [7.0, 0.0]]])}
    feeds = [{"m": np.array([[1, 1, 0]])}]
    own = [{"m": np.array([[1, 1, 1, 0]])}]
    score = Fidelity(feeds, lambda feed: old, "m", own=own)(lambda feed: new)
    assert score.value == pytest.approx(100)

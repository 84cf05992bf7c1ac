"""A classifier's bundle answers texts with labels, whatever the batch; other models refuse to predict."""

from dataclasses import replace

import numpy as np
import pytest
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.running.answers import Answer
from graphwright.backends.running.runner import BATCH, load
from graphwright.ir.errors import InputError
from handmade import parsed

LABELS = ["O", "B-X", "I-X"]
rng = np.random.default_rng(0)
TABLE = rng.standard_normal((40, 3)).astype(np.float32)
IDS = "int64[batch,length] input_ids, int64[batch,length] attention_mask"


def bundle(make, folder, body, outputs, task, **info):
    """A bundle of a graph over the tiny encoder's inputs and tokenizer, with one number a token and label."""
    like = make.encoder()
    graph = parsed(body, IDS, outputs, {"table": TABLE, "second": np.array([1])})
    program = replace(
        like,
        graph=graph.graph,
        outputs=graph.outputs,
        task=task,
        info={**like.info, "labels": LABELS, **info},
    )
    return load(write(folder / "out", [Variant("default", program)], threads=1))


SUM = """words = Gather (table, input_ids)
mask = Cast <to=1> (attention_mask)
axis = Constant <value_ints=[2]> ()
column = Unsqueeze (mask, axis)
kept = Mul (words, column)
logits = ReduceSum <keepdims=0> (kept, second)"""


def softmax(row):
    weights = np.exp(row.astype(np.float64))
    return weights / weights.sum()


def test_texts_are_answered_with_labels_in_their_order(make, tmp_path):
    loaded = bundle(make, tmp_path, SUM, "float[batch,3] logits", "sequence-classification")
    texts = [" ".join("abcdefgh"[: 1 + i % 7]) for i in range(BATCH + 5)]
    found = loaded.predict(texts)
    assert found == loaded(texts)
    for text, answer in zip(texts, found, strict=True):
        shares = softmax(TABLE[[2 + ord(letter) - 97 for letter in text.split()]].sum(0))
        assert answer.label == LABELS[int(shares.argmax())]
        assert answer.probability == pytest.approx(shares.max(), rel=1e-5)
    alone = loaded.predict(texts[3])
    assert isinstance(alone, Answer)
    assert alone.label == found[3].label


def test_spans_of_every_text_lie_in_it(make, tmp_path):
    loaded = bundle(
        make,
        tmp_path,
        "logits = Gather (table, input_ids)",
        "float[batch,length,3] logits",
        "token-classification",
    )
    texts = ["a b c d", "e", "f g"]
    for text, found in zip(texts, loaded.predict(texts), strict=True):
        labelled = [letter for letter in text.split() if TABLE[2 + ord(letter) - 97].argmax() > 0]
        assert "".join(span.text.replace(" ", "") for span in found) == "".join(labelled)
        assert all(text[span.start : span.end] == span.text and span.label == "X" for span in found)
    assert any(loaded.predict(texts))


def test_a_reranker_gives_scores_of_pairs(make, tmp_path):
    body = SUM.replace("logits =", "all =") + "\nlogits = Slice (all, zero, second, second)"
    body = "zero = Constant <value_ints=[0]> ()\n" + body
    loaded = bundle(
        make, tmp_path, body, "float[batch,1] logits", "sequence-classification", labels=["LABEL_0"]
    )
    first, second = loaded.predict(["a", "b"], ["c", "d"])
    assert first == pytest.approx(TABLE[2, 0] + TABLE[4, 0], rel=1e-5)
    assert second == pytest.approx(TABLE[3, 0] + TABLE[5, 0], rel=1e-5)
    assert loaded.predict("a", "c") == pytest.approx(first)


def test_a_model_of_another_task_gives_outputs_and_does_not_predict(make, tmp_path):
    loaded = bundle(make, tmp_path, "y = Gather (table, input_ids)", "float[batch,length,3] y", "features")
    found = loaded(["a b c", "d"])["y"]
    np.testing.assert_array_equal(found[0], TABLE[[2, 3, 4]])
    np.testing.assert_array_equal(found[1, :1], TABLE[[5]])
    many = loaded([*["a"] * BATCH, "a b c d"])["y"]  # two batches of unequal lengths
    assert many.shape == (BATCH + 1, 4, 3)
    np.testing.assert_array_equal(many[-1], TABLE[[2, 3, 4, 5]])
    np.testing.assert_array_equal(many[:-1, 0], np.tile(TABLE[2], (BATCH, 1)))
    with pytest.raises(InputError, match="task is features, and only classifiers predict"):
        loaded.predict(["a"])

"""Judges on models small enough to score by hand."""

import numpy as np
import pytest
from graphwright.ir.errors import DataError
from graphwright.ir.inputs.text import TextEncoder
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from graphwright.tools.judge import fidelity
from graphwright.tools.judge.data import Data, Row
from graphwright.tools.judge.quality import Fidelity, Score, judge
from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "good": 3, "bad": 4, "film": 5}
INPUTS = (
    InputSpec("input_ids", "int64", ("batch", "length"), "token_ids", 6),
    InputSpec("attention_mask", "int64", ("batch", "length"), "attention_mask"),
)


@pytest.fixture(scope="module")
def encoder():
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextEncoder(tokenizer.to_str().encode(), INPUTS, {}, {"batch": (1, 99), "length": (1, 8)})


def program(task, **info):
    return Program(None, "onnx", INPUTS, ("logits",), task, info=info)


def rows(*examples):
    return tuple(Row(line, *example) for line, example in enumerate(examples, 1))


def never(feed):
    raise AssertionError("the reference is not needed here")


def test_accuracy_takes_labels_by_name_by_number_and_as_json_gives_them(encoder):
    def run(feed):  # NEG whenever "bad" occurs
        bad = (feed["input_ids"] == 4).any(axis=1)
        return {"logits": np.stack([bad, ~bad], -1).astype(np.float32)}

    examples = rows(
        ("good film", None, "pos"),
        ("bad film", None, "NEG"),
        ("bad", None, 0),
        ("good", None, 1.0),
        ("good", None, "0"),
        ("bad", None, False),
        ("good good good", None, True),
    )
    data = Data("d.csv", "classification", examples)
    score = judge(program("sequence-classification", labels=["NEG", "POS"]), data, encoder, never)(run)
    assert score == Score("accuracy", pytest.approx(100 * 6 / 7))
    wrong = Data("d.csv", "classification", rows(("good", None, "great")))
    with pytest.raises(DataError, match=r"d\.csv, line 1: 'great' is no label of the model.*NEG, POS"):
        judge(program("sequence-classification", labels=["NEG", "POS"]), wrong, encoder, never)


def test_similarity_ranks_cosines_and_pools_what_is_not_pooled(encoder):
    table = np.array([[9, 9], [0, 0], [0, 0], [1, 0], [0, 1], [1, 1]], np.float32)

    def run(feed):  # padding carries a large value that the mean must leave out
        return {"last_hidden_state": table[feed["input_ids"]]}

    examples = rows(
        ("good", "good", 5.0), ("good", "bad", 0.0), ("good", "film", 3.0), ("good good film", "good", 4.0)
    )
    score = judge(program("features"), Data("d", "similarity", examples), encoder, never)(run)
    assert score.metric == "Spearman"
    assert score.value == pytest.approx(100)


def test_tagging_reads_a_words_first_token_and_counts_entities(encoder):
    def run(feed):  # good -> B-X, bad -> I-X, everything else -> O
        guesses = np.select([feed["input_ids"] == 3, feed["input_ids"] == 4], [1, 2], 0)
        return {"logits": np.eye(3, dtype=np.float32)[guesses]}

    examples = rows(
        (("good", "bad", "film"), None, ("B-X", "I-X", "O")), (("film", "good"), None, ("1", "B-X"))
    )
    model = program("token-classification", labels=["O", "B-X", "I-X"])
    score = judge(model, Data("d", "token-classification", examples), encoder, never)(run)
    assert score.value == pytest.approx(100 * 4 / 5)
    assert score.details["F1"] == pytest.approx(100 * 2 * 2 / 5)
    wrong = Data("d", "token-classification", rows((("good",), None, ("B-Y",))))
    with pytest.raises(DataError, match="'B-Y' is no label"):
        judge(model, wrong, encoder, never)(run)


def test_perplexity_of_a_causal_model_leaves_padding_out(encoder):
    def run(feed):  # "film" follows with probability 1/2, each of the others with 1/10
        probabilities = np.full((*feed["input_ids"].shape, 6), 0.1)
        probabilities[..., 5] = 0.5
        return {"logits": np.log(probabilities)}

    examples = rows(("good film",), ("bad film good film bad",))
    data = Data("d", "perplexity", examples)
    score = judge(program("causal-lm"), data, encoder, never)(run)
    # film three times, good and bad once each: 5 predictions.
    assert score.value == pytest.approx((0.5**3 * 0.1**2) ** (-1 / 5))
    assert not score.higher_is_better
    assert Score("perplexity", 12.0, False).drop_from(Score("perplexity", 10.0, False)) == 2.0
    with pytest.raises(DataError, match="needs a language model"):
        judge(program("embedding"), data, encoder, never)(run)


def test_perplexity_of_a_masked_model_hides_what_it_asks_for(encoder):
    asked = []

    def run(feed):
        asked.append(feed["input_ids"])
        return {"logits": np.zeros((*feed["input_ids"].shape, 6), np.float32)}

    data = Data("d", "perplexity", rows(*[("good bad film good bad film",)] * 20))
    judged = judge(program("masked-lm"), data, encoder, never, seed=3)
    assert judged(run).value == pytest.approx(6)
    hidden = np.concatenate(asked) == 2
    assert 0.05 < hidden.mean() < 0.3
    first = np.concatenate(asked)
    asked.clear()
    judged(run)
    assert (np.concatenate(asked) == first).all()


def test_fidelity_compares_real_tokens_only():
    mask = np.array([[1, 1, 0]])
    old = {"hidden": np.array([[[1.0, 0], [0, 1], [5, 5]]])}
    new = {"hidden": np.array([[[1.0, 0], [1, 1], [-5, 5]]])}
    score = Fidelity([{"m": mask}], lambda feed: old, "m")(lambda feed: new)
    assert score.value == pytest.approx(100 * (1 + 0.5**0.5) / 2)
    assert score.details["worst"] == pytest.approx(100 * 0.5**0.5)


def test_fidelity_asks_the_original_once_as_far_as_there_is_room(monkeypatch):
    asked, answers = [], {"hidden": np.ones((1, 4))}
    judge = Fidelity([{"n": 0}, {"n": 1}], lambda feed: asked.append(feed["n"]) or answers, None)
    monkeypatch.setattr(fidelity, "KEPT", answers["hidden"].nbytes)
    assert [judge(lambda feed: answers).value for _ in range(3)] == [100.0] * 3
    assert asked == [0, 1, 1, 1]


def test_fidelity_of_logits_is_agreement_with_the_divergence_beside_it():
    old = {"logits": np.log([[0.5, 0.5], [0.9, 0.1]])}
    new = {"logits": np.log([[0.5, 0.5], [0.1, 0.9]])}
    score = Fidelity([{}], lambda feed: old, None)(lambda feed: new)
    assert (score.metric, score.value) == ("agreement", 50)
    assert score.details["worst KL"] == pytest.approx(0.8 * np.log(9))
    assert score.details["KL"] == pytest.approx(0.4 * np.log(9))

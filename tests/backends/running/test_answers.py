"""Labels, probabilities and spans, against softmax and sigmoid worked out by hand."""

import numpy as np
import pytest
from graphwright.backends.running.answers import Answer, Span, classes, spans

INFO = {"labels": ["bad", "good"]}


def test_a_class_comes_with_its_probability_and_those_of_the_others():
    first, second = classes(np.log(np.array([[1, 3], [9, 1]], np.float32)), INFO)
    assert (first.label, second.label) == ("good", "bad")
    assert first.probability == pytest.approx(0.75)
    assert second.probabilities == pytest.approx({"bad": 0.9, "good": 0.1})


def test_large_logits_do_not_overflow():
    (answer,) = classes(np.array([[1000.0, -1000.0]], np.float32), INFO)
    assert answer == Answer("bad", 1.0, {"bad": 1.0, "good": 0.0})


def test_labels_without_names_are_numbers():
    (answer,) = classes(np.array([[0.0, 2.0, 1.0]], np.float32), INFO)
    assert answer.label == "1"


def test_one_column_is_a_score():
    assert classes(np.array([[0.25], [-3]], np.float32), {"labels": ["LABEL_0"]}) == [0.25, -3.0]


def test_several_labels_may_hold_or_none():
    info = {"labels": ["a", "b", "c"], "problem_type": "multi_label_classification"}
    both, none = classes(np.array([[0.0, 3, -2], [-1, -1, -1]], np.float32), info)
    assert [answer.label for answer in both] == ["b", "a"]
    assert both[1].probability == 0.5
    assert none == ()


TEXT = "Ada Lovelace of London"


def tokens(*labels, names=("O", "B-PER", "I-PER", "B-LOC", "I-LOC")):
    """Logits by which each token has a label, and where the tokens lie."""
    logits = np.zeros((len(labels), len(names)), np.float32)
    for row, label in zip(logits, labels, strict=True):
        row[names.index(label)] = np.log(4)  # one half of five names, four fifths of two
    return logits, {"labels": names}


PLACES = [(0, 0), (0, 3), (4, 8), (8, 12), (13, 15), (16, 22), (0, 0)]


def test_tokens_of_one_name_are_one_span():
    logits, info = tokens("O", "B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC")
    found = spans(logits, PLACES, TEXT, info)
    assert [(span.label, span.start, span.end, span.text) for span in found] == [
        ("PER", 0, 12, "Ada Lovelace"), ("LOC", 16, 22, "London"),
    ]  # fmt: skip
    assert found[0].probability == pytest.approx(0.5)


def test_a_beginning_ends_the_span_before_it():
    logits, info = tokens("O", "B-PER", "B-PER", "I-PER", "O", "O", "O")
    assert [span.text for span in spans(logits, PLACES, TEXT, info)] == ["Ada", "Lovelace"]


def test_an_inside_of_another_label_begins_a_span_and_plain_labels_join():
    logits, info = tokens("O", "B-PER", "I-LOC", "I-LOC", "O", "O", "O")
    assert [(s.label, s.text) for s in spans(logits, PLACES, TEXT, info)] == [
        ("PER", "Ada"),
        ("LOC", "Lovelace"),
    ]
    logits, info = tokens("O", "name", "name", "O", "O", "O", "O", names=("O", "name"))
    assert spans(logits, PLACES, TEXT, info) == [Span("name", pytest.approx(0.8), 0, 8, "Ada Love")]


def test_a_label_with_a_dash_keeps_it():
    logits, info = tokens("O", "B-job-title", "O", "O", "O", "O", "O", names=("O", "B-job-title"))
    assert spans(logits, PLACES, TEXT, info)[0].label == "job-title"


def test_the_space_that_a_byte_level_token_carries_is_no_part_of_a_span():
    logits, info = tokens("B-LOC", names=("O", "B-LOC"))
    (span,) = spans(logits, [(15, 22)], TEXT, info)
    assert (span.start, span.text) == (16, "London")

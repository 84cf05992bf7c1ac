"""Lengths of texts as the model takes them, and the padding of batches as they come."""

import pytest
from graphwright.ir.capture import capture
from graphwright.tools.judge.data import Data, Row
from graphwright.tools.judge.lengths import lengths


@pytest.fixture(scope="module")
def program(encoder_directory):
    return capture(str(encoder_directory))


def rows(*counts, pair=None):
    return tuple(Row(number, " ".join(["cat"] * count), pair) for number, count in enumerate(counts, 1))


def test_special_tokens_count_and_long_texts_are_cut(program):
    found = lengths(Data("d.csv", "fidelity", rows(1, 1, 5, 400)), program)
    assert found == {"source": "d.csv", "rows": 4, "lengths": {"3": 2, "7": 1, "48": 1}, "padding": {}}


def test_padding_is_that_of_batches_as_they_come(program):
    found = lengths(Data("d.csv", "fidelity", rows(*([2] * 4 + [6] * 4) * 4)), program)
    assert found["padding"] == {"8": pytest.approx(1 - 48 / 64), "32": pytest.approx(1 - 48 / 64)}
    apart = lengths(Data("d.csv", "fidelity", rows(*[2] * 8, *[6] * 8)), program)
    assert apart["padding"]["8"] == 0


def test_pairs_are_one_call_or_two(program):
    together = lengths(Data("d.csv", "classification", rows(2, 2, pair="cat cat")), program)
    assert together["lengths"] == {"7": 2}  # [CLS] a a [SEP] b b [SEP]
    apart = lengths(Data("d.csv", "similarity", rows(2, 3, pair="cat")), program)
    assert apart["lengths"] == {"3": 2, "4": 1, "5": 1}


def test_a_large_file_is_looked_at_evenly(program, monkeypatch):
    monkeypatch.setattr("graphwright.tools.judge.lengths.MOST", 10)
    found = lengths(Data("d.csv", "fidelity", rows(*range(1, 41))), program)
    assert found["lengths"] == {str(2 + count): 1 for count in range(1, 41, 4)}

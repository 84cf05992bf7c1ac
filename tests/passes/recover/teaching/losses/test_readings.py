"""What a teacher and a student hold of the same words, whose tokens differ."""

import numpy as np
import pytest
import torch
from graphwright.ir.errors import DataError, PassError
from graphwright.passes.manager.contract import Context
from graphwright.passes.prune.transfer_vocabulary import TransferVocabulary
from graphwright.passes.recover.distill import Distill
from graphwright.passes.recover.teaching.losses.readings import SAME, reading
from tokens import pooled
from worded import feeds_of, sentences, worded
from zoo import fx_program


def pair(name="bert", size=64, **context):
    """A teacher and a student with a vocabulary of its own, and the student's feeds."""
    teacher = worded(fx_program(name) if isinstance(name, str) else name)
    result = TransferVocabulary(size=size).run(
        teacher.clone(), Context(calibration=feeds_of(teacher, **context))
    )
    return teacher, result.program, list(result.context.calibration)


def test_one_tokenizer_changes_nothing():
    teacher, _, feeds = pair()
    same = reading(teacher, teacher.clone())
    assert same is SAME
    assert same.given(feeds[0]) is feeds[0]


@pytest.mark.parametrize("pairs", [None, sentences(60, seed=9)])
def test_words_are_means_over_their_pieces(pairs):
    """By the words of the encodings themselves, token by token in NumPy."""
    teacher, student, feeds = pair(pairs=pairs)
    both = reading(teacher, student)
    feed = feeds[0]
    given = both.given(feed)
    assert given["input_ids"].shape[1] < feed["input_ids"].shape[1]
    rng = np.random.default_rng(0)
    for program, one, how, other in (
        (teacher, given, both.above, both.readers[0]), (student, feed, both.below, both.readers[1]),
    ):  # fmt: skip
        states = rng.standard_normal((*one["input_ids"].shape, 5)).astype(np.float32)
        (found,) = how(feed, [torch.from_numpy(states)])
        texts = [str(t) for t in feed["text"]]
        second = [str(t) for t in feed["pair"]] if pairs else None
        expected = []
        for row, encoding in enumerate(other.tokenize(texts, second)):
            groups = {}
            for place, (word, segment) in enumerate(
                zip(encoding.word_ids, encoding.sequence_ids, strict=True)
            ):
                groups.setdefault((segment, place if word is None else word), []).append(place)
            expected += [states[row, places].mean(0) for places in groups.values()]
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
        assert program.tokenizer


def test_words_cut_off_are_left_out():
    """A text longer than the student takes: its last words are the teacher's alone."""
    long = [" ".join(sentences(6, seed=n)) for n in range(6)]
    teacher, student, feeds = pair(texts=sentences() + long)
    both = reading(teacher, student)
    feed = feeds[-1]
    above, below = (
        how(feed, [torch.ones(*one["input_ids"].shape, 3)])[0]
        for how, one in ((both.above, both.given(feed)), (both.below, feed))
    )
    assert above.shape == below.shape
    words = {len(set(e.word_ids)) for e in both.readers[0].tokenize([str(t) for t in feed["text"]])}
    assert len(above) < len(feed["text"]) * max(words)


def test_what_has_no_vector_for_each_token_is_left_as_it_is():
    teacher, student, feeds = pair()
    both = reading(teacher, student)
    vectors, scores = torch.ones(6, 4), torch.ones(*feeds[0]["input_ids"].shape)
    assert both.below(feeds[0], [vectors, scores])[0] is vectors
    assert both.below(feeds[0], [vectors, scores])[1] is scores


def test_ids_of_another_tokenizer_are_refused():
    teacher, student, feeds = pair()
    wrong = {**feeds[0], "input_ids": feeds[0]["input_ids"].copy()}
    wrong["input_ids"][0, 2] += 1
    with pytest.raises(DataError, match="not what the program's tokenizer makes"):
        reading(teacher, student).given(wrong)


def test_scores_of_tokens_and_attention_are_left_out_in_words():
    teacher, student, feeds = pair("gpt2")
    context = Context(calibration=feeds, original=teacher)
    result = Distill(steps=3, batch=4, attention=1.0).run(student.clone(), context)
    assert any("has a score for each token of a vocabulary" in note for note in result.notes)
    assert any("attention is not compared" in note for note in result.notes)
    with pytest.raises(PassError, match="no term") if False else pytest.raises(Exception, match="no term"):
        Distill(steps=3, batch=4, hidden=0.0).run(student.clone(), context)


def test_shared_projections_join_widths_too():
    teacher = worded(pooled("bert"))
    context = Context(calibration=feeds_of(teacher), original=teacher)
    moved = TransferVocabulary(size=64).run(teacher.clone(), context)
    from graphwright.passes.share.share_projections import ShareProjections

    narrow = ShareProjections(width=16).run(moved.program.clone(), moved.context)
    result = Distill(steps=3, batch=6, projections="shared").run(narrow.program.clone(), moved.context)
    assert result.statistics["steps"] == 3
